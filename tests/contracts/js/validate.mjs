// Reads AsyncAPI documents from the files named, and prints for each what the parser found wrong and what it understood.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
const found = {};
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(readFileSync(file, "utf8"));
  found[file] = {
    problems: diagnostics.map(({ severity, code, path, message }) => ({ severity, code, path: path.join("."), message })),
    operations: document?.operations().all().map((operation) => ({
      action: operation.action(),
      addresses: operation.channels().all().map((channel) => channel.address()),
      messages: operation.messages().all().map((message) => message.title() ?? message.name()),
    })),
  };
}
console.log(JSON.stringify(found));
