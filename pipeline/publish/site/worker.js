// One model in a thread of its own: it writes answers or, if it is the reward model, scores them.

import { choose, draws } from "./decoding.js";
import { Model } from "./model.js";
import { Text } from "./text.js";

const UNFINISHED = "\uFFFD"; // what the first bytes of a longer character decode to
const runtimes = {
  wasm: () => import("onnxruntime-web/wasm"),
  webgpu: () => import("onnxruntime-web/webgpu"),
};

let model, text, writing;

const calls = {
  async load({ device, runtime, weights, tokenizer }) {
    const onnxruntime = await runtimes[device]();
    Object.assign(onnxruntime.env.wasm, { wasmBinary: runtime, numThreads: 1 });
    model = await Model.open(onnxruntime, device, weights);
    text = new Text(tokenizer);
  },

  // Begin an answer to a prompt, in the chat format or as it stands. Returns its number.
  begin(prompt, { chat, temperature, seed, limit, context, shortestRoom }) {
    const unread = chat ? text.prompt(prompt) : text.encode(prompt);
    const longest = context - shortestRoom;
    if (unread.length > longest) {
      throw new Error(`the prompt has ${unread.length} tokens; at most ${longest} leave room to answer, shorten it`);
    }
    if (writing) model.forget(writing.past);
    writing = {
      number: (writing?.number ?? 0) + 1,
      unread,
      past: model.nothing(),
      tokens: [],
      decode: (tokens) => (chat ? text.answer(tokens) : text.decode(tokens)),
      shown: "",
      temperature,
      draws: draws(seed),
      room: Math.min(limit, context - unread.length),
    };
    return writing.number;
  },

  // Write one more token of the answer.
  async next(number) {
    if (number !== writing.number) throw new Error("another answer was begun");
    const { output, past } = await model.read(writing.unread, writing.past);
    const token = choose(output, writing.temperature, writing.draws());
    const stopped = text.stop.includes(token);
    if (!stopped) writing.tokens.push(token);
    const cut = !stopped && writing.tokens.length === writing.room;
    Object.assign(writing, { unread: [token], past });
    const whole = writing.decode(writing.tokens);
    // Text is held back while it ends inside a character of several bytes.
    if (stopped || cut || !whole.endsWith(UNFINISHED)) writing.shown = whole;
    return { text: writing.shown, tokens: writing.tokens, stopped, cut };
  },

  // The reward of an answer, before the family's offset. What is too long loses the beginning of the prompt.
  async score(prompt, answer, finished, context) {
    const [first, ...rest] = text.exchange(prompt, answer, finished);
    const { output, past } = await model.read([first, ...rest.slice(-(context - 1))], model.nothing());
    model.forget(past);
    return output[0];
  },
};

async function answer({ id, name, given }) {
  try {
    postMessage({ id, result: await calls[name](...given) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
}

// A model reads one thing at a time.
let before = Promise.resolve();
addEventListener("message", ({ data }) => {
  before = before.then(() => answer(data));
});
