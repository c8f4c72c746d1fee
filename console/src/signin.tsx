// The page that asks for the token, and the one for a token of before that could not be tried.

import { useEffect, useRef, useState } from "preact/hooks";
import { admit, signIn } from "./admit";
import { Problem } from "./api";
import { go } from "./route";
import { leave, refusal } from "./session";
import { Field, Trouble, useAct } from "./ui";

export function SignIn() {
  const [value, setValue] = useState("");
  const { act, busy, problem } = useAct();
  const submit = (event: Event) => {
    event.preventDefault();
    refusal.value = null;
    void act(() => signIn(value.trim()));
  };
  const refused = refusal.value;
  return (
    <main class="signin">
      <h1>Cove</h1>
      <form onSubmit={submit}>
        <Field
          label="Token"
          type="password"
          value={value}
          set={setValue}
          hint="Kept in this tab until you close it. Leave it empty where none is asked for."
          autofocus
        />
        <button type="submit" class="main" disabled={busy}>
          Sign in
        </button>
        {refused && (
          <Trouble of={new Problem(refused.message, 401, "UNAUTHENTICATED", refused.remedy)} />
        )}
        <Trouble of={problem} />
        <p class="dim">
          The first start of Cove leaves one in its state directory:
          <br />
          <code>cat ~/.local/state/cove/registry/token</code>
        </p>
      </form>
    </main>
  );
}

/** Who does so is done with where they are; who is refused comes back to it. */
export function signOut(): void {
  refusal.value = null;
  leave();
  go("#/");
}

/** The token of before is tried; what else fails than the token itself may pass. */
export function Return() {
  const { act, busy, problem } = useAct();
  const last = useRef<unknown>(null); // Stays while it is tried again.
  last.current = problem ?? last.current;
  const again = () => act(admit);
  useEffect(() => {
    void again();
  }, []);
  if (!last.current) return null;
  return (
    <main class="signin">
      <h1>Cove</h1>
      <Trouble of={last.current} />
      <div class="buttons">
        <button type="button" onClick={signOut}>
          Sign out
        </button>
        <button type="button" class="main" disabled={busy} onClick={again}>
          Try again
        </button>
      </div>
    </main>
  );
}
