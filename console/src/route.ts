// Where the page is: in the fragment of its address, which no server sees.

import { signal } from "@preact/signals";

export interface Route {
  page: "list" | "tree" | "workspace";
  id: string;
  tab: string;
  /** What in the tab: the id of an execution, the path of a file. */
  item: string;
}

export const TABS = ["commands", "terminal", "files", "changes", "usage", "forks"] as const;

export function parse(hash: string): Route {
  const [page = "", id = "", tab = "", ...rest] = hash
    .replace(/^#\/?/, "")
    .split("/")
    .map((each) => {
      try {
        return decodeURIComponent(each);
      } catch {
        return each;
      }
    });
  if (page === "w" && id) {
    const known = (TABS as readonly string[]).includes(tab) ? tab : TABS[0];
    return { page: "workspace", id, tab: known, item: rest.join("/") };
  }
  return { page: page === "tree" ? "tree" : "list", id: "", tab: "", item: "" };
}

export const route = signal<Route>(parse(location.hash));

/** Whether something is on the page that was not saved. */
export const held = signal(false);

/** What somebody wants to do that would lose it. */
export const wanted = signal<(() => void) | null>(null);

/** Do it, or have it asked first whether what was not saved may go. */
export function ask(act: () => void): void {
  if (held.value) wanted.value = act;
  else act();
}

let here = location.hash;
addEventListener("hashchange", () => {
  const next = location.hash;
  if (next === here) return;
  if (held.value) {
    history.pushState(null, "", here); // It was Back, or what somebody typed.
    go(next);
    return;
  }
  here = next;
  route.value = parse(here);
});
addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey;
  if (!held.value || !link?.hash || elsewhere) return;
  event.preventDefault();
  if (link.hash !== here) go(link.hash);
});
addEventListener("beforeunload", (event) => {
  if (held.value) event.preventDefault();
});

export function to(id: string, tab: string = TABS[0], item = ""): string {
  const rest = item ? `/${item.split("/").map(encodeURIComponent).join("/")}` : "";
  return `#/w/${id}/${tab}${rest}`;
}

/** Asks before, where something would be lost. */
export function go(hash: string): void {
  ask(() => {
    location.hash = hash;
  });
}
