// A model of the family as onnxruntime runs it; pipeline/publish/graph.py says what goes in and out.

export class Model {
  static async open({ InferenceSession, Tensor }, device, weights) {
    const session = await InferenceSession.create(weights, {
      executionProviders: [device],
      // Keys and values stay where they are computed: they are only read there.
      preferredOutputLocation: device === "webgpu" ? "gpu-buffer" : "cpu",
    });
    return new Model(session, Tensor);
  }

  constructor(session, Tensor) {
    this.session = session;
    this.Tensor = Tensor;
    this.kept = session.inputMetadata.filter(({ name }) => name.startsWith("past_"));
  }

  // The past before the first token.
  nothing() {
    return Object.fromEntries(
      this.kept.map(({ name, shape: [rows, heads, , width] }) => [
        name,
        new this.Tensor("float32", new Float32Array(), [rows, heads, 0, width]),
      ]),
    );
  }

  // Read tokens after the past: the output at the last of them, and the past of what comes next.
  async read(tokens, past) {
    const length = past.past_key_0.dims[2] + tokens.length;
    const { output, ...present } = await this.session.run({
      tokens: new this.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      length: new this.Tensor("int32", [length], []),
      last_place: new this.Tensor("int32", [length - 1], [1]),
      ...past,
    });
    this.forget(past);
    return {
      output: await output.getData(true),
      past: Object.fromEntries(Object.entries(present).map(([name, tensor]) => [`past_${name}`, tensor])),
    };
  }

  // Give back the memory of a past that nothing follows.
  forget(past) {
    for (const tensor of Object.values(past)) tensor.dispose();
  }
}
