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
addEventListener("hashchange", () => {
  route.value = parse(location.hash);
});

export function to(id: string, tab: string = TABS[0], item = ""): string {
  const rest = item ? `/${item.split("/").map(encodeURIComponent).join("/")}` : "";
  return `#/w/${id}/${tab}${rest}`;
}

export function go(hash: string): void {
  location.hash = hash;
}
