// The page that asks for the token.

import { useState } from "preact/hooks";
import { admit } from "./admit";
import { Problem } from "./api";
import { keep, refusal } from "./session";
import { Field, Trouble, useAct } from "./ui";

export function SignIn() {
  const [value, setValue] = useState("");
  const { act, busy, problem } = useAct();
  const submit = (event: Event) => {
    event.preventDefault();
    void act(async () => {
      keep(value.trim());
      try {
        await admit();
      } catch (error) {
        if (!(error instanceof Problem && error.status === 401)) throw error;
        return;
      }
      refusal.value = null;
    });
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
