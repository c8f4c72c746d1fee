// Output of programs that take a pipe for a terminal, as text.

const CONTROLS =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
  /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b\x0c\x0e-\x1a\x7f]/g;

/** Without colours, and moves of a cursor that is not there. */
export function plain(text: string): string {
  return text.replace(CONTROLS, "").replaceAll("\r\n", "\n");
}
