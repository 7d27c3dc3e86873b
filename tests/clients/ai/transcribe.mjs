// Transcribe as an application does that uses Vercel's AI SDK: node transcribe.mjs FOLDER <request.json
//
// FOLDER has the packages in node_modules. The request, on stdin: baseURL, a list of calls, each with the file, the
// model and the provider's options. On stdout: for each call what the SDK returns, or its error.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

globalThis.File ??= (await import('node:buffer')).File; // Node 18 has it there alone

const require = createRequire(join(process.argv[2], 'package.json'));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { experimental_transcribe: transcribe } = (await load('ai')).default;
const { createOpenAI } = (await load('@ai-sdk/openai')).default;

let text = '';
for await (const piece of process.stdin) text += piece;
const { baseURL, calls } = JSON.parse(text);
const openai = createOpenAI({ baseURL, apiKey: 'none' });

const answers = [];
for (const { file, model, options } of calls) {
  try {
    const said = await transcribe({
      model: openai.transcription(model),
      audio: await readFile(file),
      providerOptions: { openai: options },
      maxRetries: 0,
    });
    const { text, segments, language, durationInSeconds, warnings } = said;
    answers.push({ text, segments, language, durationInSeconds, warnings });
  } catch (error) {
    answers.push({ error: error.message, status: error.statusCode });
  }
}
console.log(JSON.stringify(answers));
