// How the lines of a text end. A field of a form knows one way only, and makes all others that.

export type Endings = "\n" | "\r\n" | "mixed";

export function endings(text: string): Endings {
  if (!text.includes("\r")) return "\n";
  return /\r(?!\n)|(?<!\r)\n/.test(text) ? "mixed" : "\r\n";
}

/** As a field has it. */
export function unified(text: string): string {
  return text.replace(/\r\n?/g, "\n");
}

/** What a field has, as the file had it. */
export function restored(text: string, as: Endings): string {
  return as === "\r\n" ? text.replaceAll("\n", "\r\n") : text;
}
