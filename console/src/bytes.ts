// Bytes and base64.

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

export function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** As the names of WebSocket protocols can have it: base64url without padding. */
export function toBase64Url(text: string): string {
  const plain = toBase64(new TextEncoder().encode(text));
  return plain.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
