// Keys: what is pressed where no text is written. A page registers its own while it is there.

import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";

const KEY = "cove.keys";

/** Whether single characters do something: who speaks to the machine may want that off. */
export const enabled = signal(localStorage.getItem(KEY) !== "off");

export function enable(on: boolean): void {
  enabled.value = on;
  localStorage.setItem(KEY, on ? "on" : "off");
}

export type Keys = Record<string, (event: KeyboardEvent) => void>;

const stack: { current: Keys }[] = [];

function isWriting(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    target.closest("input, textarea, select, [contenteditable], .xterm") !== null
  );
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (isWriting(event.target)) {
    const plain = event.target instanceof HTMLElement && !event.target.closest(".xterm");
    if (event.key === "Escape" && plain) (event.target as HTMLElement).blur();
    return;
  }
  if (event.key.length === 1 && !enabled.value) return;
  const onControl =
    event.target instanceof HTMLElement && event.target.closest("button, a, summary") !== null;
  if ((event.key === "Enter" || event.key === " ") && onControl) return;
  for (const { current } of [...stack].reverse()) {
    const act = current[event.key];
    if (act) {
      event.preventDefault();
      act(event);
      return;
    }
  }
});

/** Have these keys while the component is there; the last one to come goes first. */
export function useKeys(keys: Keys): void {
  // A new table at each rendering, in the one place; there as soon as the page is seen.
  const place = usePlace(keys);
  useLayoutEffect(() => {
    stack.push(place);
    return () => {
      stack.splice(stack.indexOf(place), 1);
    };
  }, [place]);
}

function usePlace(keys: Keys): { current: Keys } {
  const place = useRef(keys);
  place.current = keys;
  return place;
}
