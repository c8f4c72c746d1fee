// What was typed, and is not known to have arrived.

/** Input of a command by its offsets. */
export class Pending {
  private base: number | null = null;
  private bytes: Uint8Array = new Uint8Array();

  /** Keep what is typed. Where it belongs; null: before the first `after` nobody knows. */
  add(more: Uint8Array): number | null {
    const offset = this.base === null ? null : this.base + this.bytes.length;
    const joined = new Uint8Array(this.bytes.length + more.length);
    joined.set(this.bytes);
    joined.set(more, this.bytes.length);
    this.bytes = joined;
    return offset;
  }

  /** So many bytes have arrived in all. What has not, and is to be sent again. */
  after(offset: number): Uint8Array {
    const arrived = this.base === null ? 0 : offset - this.base;
    this.bytes = this.bytes.subarray(Math.max(0, arrived));
    this.base = offset;
    return this.bytes;
  }
}
