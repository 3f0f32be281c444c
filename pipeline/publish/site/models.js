// The models of the family, each in a worker of its own: none waits for another, and none takes another down.

// What the browser has is used if the server says that it is still the same.
const CURRENT = { cache: "no-cache" };
const STAGES = ["base", "sft", "rlhf", "reward"];

// Start to load all models, to run on the `device` wasm or webgpu. `onProgress` hears how many bytes have arrived, and
// of how many; `kept` is settled when all large files are kept for when there is no network.
export async function openFamily({ device = "wasm", onProgress = () => {} } = {}) {
  const family = await (await fetch("family.json", CURRENT)).json();
  const downloads = [];
  const progress = { loaded: 0, total: 0 };
  const get = (name) => {
    const bytes = family.files[name];
    progress.total += bytes;
    const file = download(name, bytes, family.version, (more) => {
      progress.loaded += more;
      onProgress(progress);
    });
    downloads.push(file);
    return file.then(({ content }) => content);
  };
  const runtime = get(family.runtimes[device]);
  const tokenizer = fetch("tokenizer.json").then((response) => response.json());
  const parts = { device, runtime, tokenizer };
  const models = STAGES.map((stage) => [stage, new StageModel(stage, family, parts, get(`${stage}.onnx`))]);
  const kept = Promise.all(downloads).then((files) => Promise.all(files.map(({ kept }) => kept)));
  return { ...family, models: Object.fromEntries(models), kept };
}

// The graphics card if there is one, and the processor otherwise.
export async function bestDevice() {
  const adapter = await navigator.gpu?.requestAdapter();
  return adapter && !adapter.info.isFallbackAdapter ? "webgpu" : "wasm";
}

class StageModel {
  constructor(stage, family, parts, weights) {
    this.chat = stage !== "base";
    this.family = family;
    this.calls = 0;
    this.waiting = new Map();
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(result);
    };
    this.broken = new Promise((_, reject) => {
      this.worker.onerror = ({ message }) => reject(new Error(message ?? "its program could not be loaded"));
    });
    this.ready = this.load(parts, weights);
    this.ready.catch(() => {}); // whoever waits for it hears of it
  }

  async load({ device, runtime, tokenizer }, weights) {
    const [code, text, numbers] = await Promise.all([runtime, tokenizer, weights]);
    await this.call("load", [{ device, runtime: code, tokenizer: text, weights: numbers }], [numbers.buffer]);
  }

  call(name, given, transferred = []) {
    const id = this.calls++;
    const done = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.worker.postMessage({ id, name, given }, transferred);
    return Promise.race([done, this.broken]);
  }

  // The answer as it grows, token by token; the last one is `stopped` by the model itself, or `cut` at the limit.
  // It ends with an error when another one is begun.
  async *answer(prompt, { temperature, seed }) {
    await this.ready;
    const { limit, context, shortestRoom } = this.family;
    const settings = { chat: this.chat, temperature, seed, limit, context, shortestRoom };
    const number = await this.call("begin", [plain(prompt), settings]);
    for (;;) {
      const answer = await this.call("next", [number]);
      yield answer;
      if (answer.stopped || answer.cut) return;
    }
  }

  // The reward of an answer, less the family's offset: SFT's mean is 0.
  async score(prompt, answer, finished) {
    await this.ready;
    const reward = await this.call("score", [plain(prompt), plain(answer), finished, this.family.context]);
    return reward - this.family.offset;
  }
}

// A large file's content, and a promise that the browser keeps it for when there is no network.
async function download(name, bytes, version, onBytes) {
  // Browsers keep things for safe addresses alone: https, or the same machine.
  const cache = await globalThis.caches?.open(`${new URL(".", import.meta.url)} ${version}`);
  const found = await cache?.match(name);
  const response = found ?? (await fetch(name, CURRENT));
  if (!response.ok) throw new Error(`${name} cannot be loaded (${response.status})`);
  const content = new Uint8Array(bytes);
  let place = 0;
  for await (const piece of pieces(response.body)) {
    content.set(piece, place);
    place += piece.length;
    onBytes(piece.length);
  }
  if (place < bytes) throw new Error(`${name} did not arrive whole`);
  return { content, kept: found ?? cache?.put(name, new Response(content)) };
}

async function* pieces(body) {
  const reader = body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

// Text without halves of characters, which no encoding can hold: each becomes a question mark.
function plain(text) {
  return text.replaceAll(/\p{Surrogate}/gu, "?");
}
