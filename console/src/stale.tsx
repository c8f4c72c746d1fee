// That what is shown may no longer be so, and why.

import { link, trouble } from "./watch";

export function Stale() {
  if (link.value !== "broken") return null;
  return (
    <p class="note" role="status">
      Not up to date: {trouble.value}. Trying again.
    </p>
  );
}
