// The scenario in Node, over gRPC.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";

import { FileService, type WriteFileRequestSchema } from "#stubs/cove/gateway/v1/gateway_pb";
import { connect } from "./node";
import { scenario } from "./scenario";

function channel(variable: string): Transport {
  return connect(process.env[variable] ?? "");
}

async function* parts(name: string, path: string, content: string): AsyncGenerator<MessageInitShape<typeof WriteFileRequestSchema>> {
  const data = new TextEncoder().encode(content);
  yield { part: { case: "header", value: { name, path } } };
  yield { part: { case: "data", value: data } };
  yield { part: { case: "end", value: { bytes: BigInt(data.length) } } };
}

const direct = channel("COVE_ADDRESS");
await scenario({
  language: "typescript",
  suffix: process.env.COVE_SUFFIX ?? "",
  repository: process.env.COVE_REPOSITORY ?? "",
  direct,
  losing: () => channel("COVE_LOSING_ADDRESS"),
  cutting: () => channel("COVE_CUTTING_ADDRESS"),
  write: async (name, path, content) => {
    const { file } = await createClient(FileService, direct).writeFile(parts(name, path, content));
    return file!.path;
  },
  tell: console.log,
});
