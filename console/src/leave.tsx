// What somebody wrote and has not saved: it is lost only when they say so.

import { useLayoutEffect } from "preact/hooks";
import { held, wanted } from "./route";
import { Buttons, Dialog } from "./ui";

/** Have it asked before something leads away, while there is something to be lost. */
export function useHeld(dirty: boolean): void {
  useLayoutEffect(() => {
    held.value = dirty;
    return () => {
      held.value = false;
      wanted.value = null;
    };
  }, [dirty]);
}

interface LeaveProps {
  title: string;
  /** What is gone then. */
  lost: string;
}

/** Asks, when somebody wants to do what would lose it. */
export function Leave({ title, lost }: LeaveProps) {
  if (!wanted.value) return null;
  const stay = () => {
    wanted.value = null;
  };
  const leave = (event: Event) => {
    event.preventDefault();
    const act = wanted.value;
    held.value = false;
    stay();
    act?.();
  };
  return (
    <Dialog title={title} close={stay}>
      <form onSubmit={leave}>
        <p>{lost}</p>
        <Buttons close={stay} label="Leave" busy={false} kind="danger" />
      </form>
    </Dialog>
  );
}
