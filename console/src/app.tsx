// The frame of all pages: who is signed in, where one is, and what the keys do.

import { useEffect, useState } from "preact/hooks";
import { Forest } from "./forks";
import { Help } from "./help";
import { useKeys } from "./keys";
import { List } from "./list";
import { ask, go, route, to } from "./route";
import { admitted, shared } from "./session";
import { Return, SignIn, signOut } from "./signin";
import { announce, announcement } from "./ui";
import { link, watch } from "./watch";
import { Workspace } from "./workspace";

export function App() {
  return (
    <>
      {admitted.value === false && <SignIn />}
      {admitted.value === null && <Return />}
      {admitted.value && <Frame />}
      <div class="hidden" role="status" aria-live="polite">
        {announcement.value}
      </div>
    </>
  );
}

function Frame() {
  const [help, setHelp] = useState(false);
  const { page, id } = route.value;
  const only = shared.value.split("/")[1];
  useEffect(() => {
    if (only && id !== only) go(to(only));
  }, [only, id]);
  useEffect(() => {
    const end = new AbortController();
    void watch(end.signal);
    return () => end.abort();
  }, []);
  useEffect(() => {
    document.title =
      page === "workspace" ? `${id} · Cove` : page === "tree" ? "Forks · Cove" : "Cove";
    return () => {
      document.title = "Cove";
    };
  }, [page, id]);
  // What had the focus went with the page before; the new one is where the reader is.
  useEffect(arrive, [page, id]);
  useKeys({
    "?": () => setHelp(true),
    Escape: () => {
      if (page !== "list" && !only) go("#/");
    },
  });
  return (
    <>
      <button type="button" class="skip" onClick={focusMain}>
        To the content
      </button>
      <header class="top">
        <a href="#/" class="brand">
          <svg viewBox="0 0 32 32" width="20" height="20" aria-hidden="true">
            <path
              d="M27 9.5A13 13 0 1 0 27 22.5"
              fill="none"
              stroke="currentColor"
              stroke-width="5"
              stroke-linecap="round"
            />
            <circle cx="17" cy="16" r="4" fill="currentColor" />
          </svg>
          Cove
        </a>
        {!only && (
          <nav aria-label="Pages">
            <a href="#/" aria-current={page === "list" ? "page" : undefined}>
              Workspaces
            </a>
            <a href="#/tree" aria-current={page === "tree" ? "page" : undefined}>
              Forks
            </a>
          </nav>
        )}
        <span class={`link ${link.value}`} role="status">
          {link.value}
        </span>
        <button type="button" class="plain" onClick={() => setHelp(true)}>
          Keys
        </button>
        <button type="button" class="plain" onClick={() => ask(signOut)}>
          Sign out
        </button>
      </header>
      {page === "list" && !only && <List />}
      {page === "tree" && !only && <Forest />}
      {page === "workspace" && <Workspace key={id} id={id} />}
      {help && <Help close={() => setHelp(false)} />}
    </>
  );
}

function arrive(): void {
  const main = document.querySelector("main");
  if (!main || main.contains(document.activeElement)) return;
  const rows = document.getElementById("rows");
  if (rows) {
    rows.focus({ preventScroll: true });
    return;
  }
  focusMain();
  announce(main.querySelector("h1")?.textContent ?? "");
}

function focusMain(): void {
  const main = document.querySelector("main");
  main?.setAttribute("tabindex", "-1");
  main?.focus();
}
