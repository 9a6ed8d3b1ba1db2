// Checks an AsyncAPI document with the parser of the AsyncAPI initiative: prints what it finds as JSON.
//
//     node check_document.mjs DOCUMENT
import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';

const severities = ['error', 'warning', 'info', 'hint'];
const { document, diagnostics } = await new Parser().parse(await readFile(process.argv[2], 'utf8'));
console.log(
  JSON.stringify({
    valid: document !== undefined,
    version: document?.version() ?? null,
    channels: document?.channels().all().map((channel) => channel.address()) ?? [],
    messages: document?.allMessages().all().map((message) => message.name()) ?? [],
    findings: diagnostics.map(({ code, message, path, severity }) => ({
      code: String(code),
      severity: severities[severity],
      path: path.join('.'),
      message,
    })),
  }),
);
