// What the keys do.

import { enable, enabled } from "./keys";
import { Dialog } from "./ui";

const KEYS: [string, [string, string][]][] = [
  [
    "Everywhere",
    [
      ["?", "this list"],
      ["Esc", "back, or close"],
      ["Tab", "the next control"],
    ],
  ],
  [
    "List",
    [
      ["j k ↓ ↑", "move"],
      ["g G Home End", "first, last"],
      ["Page keys", "a page"],
      ["Enter", "open"],
      ["/", "filter; Enter goes back to the rows"],
      ["n", "new workspace"],
      ["d", "delete"],
      ["u", "undelete"],
      ["t", "tree of forks"],
    ],
  ],
  [
    "Workspace",
    [
      ["1 to 6", "its tabs"],
      ["j k", "next, previous in the list of the tab"],
      ["r", "run a command"],
      ["c", "write a commit message"],
      ["f", "fork"],
    ],
  ],
  ["Terminal", [["Ctrl Shift E", "leave it; all other keys are its own"]]],
];

export function Help({ close }: { close: () => void }) {
  return (
    <Dialog title="Keys" close={close}>
      <div class="help">
        {KEYS.map(([title, keys]) => (
          <section key={title}>
            <h3>{title}</h3>
            <dl>
              {keys.map(([key, what]) => (
                <div key={key}>
                  <dt>
                    <kbd>{key}</kbd>
                  </dt>
                  <dd>{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <label class="check">
        <input
          type="checkbox"
          checked={enabled.value}
          onChange={(event) => enable(event.currentTarget.checked)}
        />
        Keys of one character do something
      </label>
      <div class="buttons">
        <button type="button" onClick={close}>
          Close
        </button>
      </div>
    </Dialog>
  );
}
