// How Node reaches a gateway.

import { readFileSync } from "node:fs";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { showing } from "./calling";

/**
 * A transport with a connection of its own: to `host:port` without TLS, to `https://host:port` with. COVE_CA_FILE
 * names the authorities that are trusted, if not those that Node brings.
 */
export function connect(address: string): Transport {
  const file = process.env.COVE_CA_FILE;
  return createGrpcTransport({
    baseUrl: address.startsWith("https://") ? address : `http://${address}`,
    nodeOptions: file ? { ca: readFileSync(file) } : {},
    interceptors: [showing(process.env.COVE_TOKEN ?? "")],
    pingIntervalMs: 20_000, // Else a peer that is gone without a word is not missed.
  });
}
