// How things are written for people.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** From one moment to another: `40s`, `5m`, `3h`, `12d`. */
export function age(from: string | undefined, now: number): string {
  if (!from) return "";
  const seconds = Math.max(0, Math.round((now - Date.parse(from)) / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** `STATE_READY` as `ready`. */
export function word(value: string | undefined, prefix = "STATE_"): string {
  return (value ?? "").replace(prefix, "").replaceAll("_", " ").toLowerCase();
}

export function short(commit: string | undefined): string {
  return (commit ?? "").slice(0, 8);
}

/** The last part of a resource's name. */
export function id(name: string | undefined): string {
  return (name ?? "").split("/").at(-1) ?? "";
}

export function repository(address: string | undefined): string {
  if (!address) return "empty repository";
  return address.replace(/^file:\/\//, "").replace(/^https:\/\//, "");
}

/** A count of seconds as `"1.5s"` says it. */
export function seconds(duration: string | undefined): number {
  return Number.parseFloat(duration ?? "0") || 0;
}
