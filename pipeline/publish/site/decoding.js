// How a model's output becomes a token.

// At temperature 0 the likeliest token, else one drawn from the tempered distribution; `draw` is in [0, 1).
export function choose(output, temperature, draw) {
  const likeliest = output.reduce((best, value, token) => (value > output[best] ? token : best), 0);
  if (temperature === 0) return likeliest;
  const weights = Float64Array.from(output, (value) => Math.exp((value - output[likeliest]) / temperature));
  let left = draw * weights.reduce((sum, weight) => sum + weight);
  const drawn = weights.findIndex((weight) => (left -= weight) < 0);
  return drawn === -1 ? likeliest : drawn; // what rounding has left over
}

// Numbers in [0, 1) that follow from the seed: mulberry32, by Tommy Ettinger.
export function draws(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
