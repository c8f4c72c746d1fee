// The small parts that all pages are made of.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Problem } from "./api";
import { word } from "./format";
import { onLeave } from "./session";

/** What a screen reader is told that is not focused. */
export const announcement = signal("");
onLeave(() => announce(""));

export function announce(text: string): void {
  announcement.value = text;
}

export function State({ value, kind = "" }: { value: string; kind?: string }) {
  return <span class={`state ${kind || word(value).replaceAll(" ", "-")}`}>{word(value)}</span>;
}

/** What went wrong, with its reason and what to do about it. */
export function Trouble({ of, close }: { of: unknown; close?: () => void }) {
  if (!of) return null;
  const problem = of instanceof Problem ? of : null;
  return (
    <div class="trouble" role="alert">
      <p>
        <strong>{of instanceof Error ? of.message : String(of)}</strong>
        {problem?.reason && <code>{problem.reason}</code>}
      </p>
      {problem?.violations.map((each) => (
        <p key={each.field}>
          <code>{each.field}</code> {each.description}
        </p>
      ))}
      {problem?.remedy && <p>{problem.remedy}</p>}
      {problem?.request && <p class="dim">Request {problem.request}</p>}
      {close && (
        <button type="button" class="plain" onClick={close}>
          Dismiss
        </button>
      )}
    </div>
  );
}

/** Runs what a button does: one at a time, and what goes wrong is shown. */
export function useAct() {
  const [problem, setProblem] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const running = useRef(false);
  const act = async (work: () => Promise<void>): Promise<boolean> => {
    if (running.current) return false;
    running.current = true;
    setBusy(true);
    setProblem(null);
    try {
      await work();
      return true;
    } catch (error) {
      setProblem(error);
      return false;
    } finally {
      running.current = false;
      setBusy(false);
    }
  };
  return { act, busy, problem, setProblem };
}

interface DialogProps {
  title: string;
  close: () => void;
  children: ComponentChildren;
}

/** The browser's own: it has the focus, keeps it, and gives it back. */
export function Dialog({ title, close, children }: DialogProps) {
  const place = useRef<HTMLDialogElement>(null);
  const label = useId();
  useEffect(() => {
    const before = document.activeElement;
    place.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog ref={place} aria-labelledby={label} onClose={close}>
      <h2 id={label}>{title}</h2>
      {children}
    </dialog>
  );
}

interface FieldProps {
  label: string;
  value: string;
  set: (value: string) => void;
  hint?: string;
  type?: "text" | "password" | "number";
  autofocus?: boolean;
  required?: boolean;
}

export function Field({ label, value, set, hint, type = "text", autofocus, required }: FieldProps) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (autofocus) input.current?.focus();
  }, [autofocus]);
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        ref={input}
        // The types know no input whose kind is a variable.
        type={type as "text"}
        value={value}
        required={required ?? false}
        autocomplete="off"
        spellcheck={false}
        aria-describedby={hint ? `${id}-hint` : undefined}
        onInput={(event) => set(event.currentTarget.value)}
      />
      {hint && (
        <small id={`${id}-hint`} class="dim">
          {hint}
        </small>
      )}
    </div>
  );
}

/** The time, anew each second while the page can be seen. */
export const now = signal(Date.now());
setInterval(() => {
  if (document.visibilityState === "visible") now.value = Date.now();
}, 1000);

interface ButtonsProps {
  close: () => void;
  label: string;
  busy: boolean;
  kind?: string;
}

export function Buttons({ close, label, busy, kind = "main" }: ButtonsProps) {
  return (
    <div class="buttons">
      <button type="button" onClick={close}>
        Cancel
      </button>
      <button type="submit" class={kind} disabled={busy}>
        {label}
      </button>
    </div>
  );
}
