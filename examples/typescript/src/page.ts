// The scenario in a browser, over gRPC-Web; `browser` opens the page, and hears its lines.

import { createClient, type Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { ExecutionService } from "#stubs/cove/gateway/v1/gateway_pb";
import { showing } from "./calling";
import { scenario } from "./scenario";

declare global {
  interface Window {
    run: (variables: Record<string, string>) => Promise<void>;
  }
}

window.run = async (variables) => {
  const channel = (variable: string): Transport =>
    createGrpcWebTransport({
      baseUrl: `http://${variables[variable]}`,
      interceptors: [showing(variables.COVE_TOKEN!)],
    });
  const direct = channel("COVE_ADDRESS");
  await scenario({
    language: "browser",
    suffix: variables.COVE_SUFFIX!,
    repository: variables.COVE_REPOSITORY!,
    direct,
    losing: () => channel("COVE_LOSING_ADDRESS"),
    cutting: () => channel("COVE_CUTTING_ADDRESS"),
    // A browser streams nothing up: a small file is written by a command, others by HTTP.
    write: async (name, path, content) => {
      const argv = ["sh", "-c", 'printf %s "$2" > "$1"; printf %s "$1"', "sh", path, content];
      return (await createClient(ExecutionService, direct).execute({ name, spec: { argv } })).stdout!.content.value as string;
    },
    tell: console.log,
  });
};
