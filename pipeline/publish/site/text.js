// How a conversation becomes tokens, as in pipeline/chat_format.py:
//
//     <|user|> What is the capital of France?<|end|><|assistant|> Paris.<|end|>

import { Tokenizer } from "@huggingface/tokenizers";

export class Text {
  constructor(tokenizer) {
    // It does not know the control tokens, so that a person who types one gives the letters of its name.
    this.tokenizer = new Tokenizer({ ...tokenizer, added_tokens: [] }, {});
    const control = Object.fromEntries(tokenizer.added_tokens.map(({ content, id }) => [content, id]));
    this.control = new Set(Object.values(control));
    this.user = control["<|user|>"];
    this.assistant = control["<|assistant|>"];
    this.end = control["<|end|>"];
    this.stop = [this.end, control["<|endoftext|>"]];
  }

  encode(text) {
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  prompt(prompt) {
    return [this.user, ...this.encode(` ${prompt}`), this.end, this.assistant];
  }

  // What the reward model reads; an answer that was cut at the limit has no end token.
  exchange(prompt, answer, finished) {
    return [...this.prompt(prompt), ...this.encode(answer && ` ${answer}`), ...(finished ? [this.end] : [])];
  }

  decode(tokens) {
    const shown = tokens.filter((token) => !this.control.has(token));
    return shown.length ? this.tokenizer.decode(shown) : ""; // it takes no empty list
  }

  // Without the space that its turn begins with.
  answer(tokens) {
    return this.decode(tokens).replace(/^ /, "");
  }
}
