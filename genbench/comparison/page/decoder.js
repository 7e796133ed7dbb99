// Decoders without PyTorch: half-precision weights, plain layers, latents and the priors they come from.
// Activations are laid out height, width, channel. Nothing here touches the page, so that it runs in Node too.
const decoding = (() => {
  // Bytes of a base64 text that hold float16 values, as float32.
  function halves(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stored = new DataView(bytes.buffer), found = new Float32Array(bytes.length / 2);
    for (let i = 0; i < found.length; i++) {
      const half = stored.getUint16(2 * i, true), exponent = (half >> 10) & 31, part = half & 1023;
      const size = exponent === 0 ? part * 2 ** -24
        : exponent === 31 ? (part ? NaN : Infinity) : (1 + part / 1024) * 2 ** (exponent - 15);
      found[i] = half & 0x8000 ? -size : size;
    }
    return found;
  }

  // Add to `outputs` sums the weighted values of `inputs` inputs. Four at once, so that a sum is read and written
  // once for four products; values of 0, half of them after a ReLU, are left out.
  function accumulate(out, to, outputs, hidden, from, inputs, weight, at) {
    let i = 0;
    while (i < inputs) {
      let found = 0, a = 0, b = 0, c = 0, d = 0, v = 0, w = 0, x = 0, y = 0;
      for (; i < inputs && found < 4; i++) {
        const value = hidden[from + i];
        if (value === 0) continue;
        const row = at + i * outputs;
        if (found === 0) { a = value; v = w = x = y = row; } // rows that are not found are read, and count 0 times
        else if (found === 1) { b = value; w = row; }
        else if (found === 2) { c = value; x = row; }
        else { d = value; y = row; }
        found++;
      }
      if (found === 0) return;
      for (let o = 0; o < outputs; o++)
        out[to + o] += a * weight[v + o] + b * weight[w + o] + c * weight[x + o] + d * weight[y + o];
    }
  }

  // What a layer adds to `run`: a function from its input to its output, which it keeps for the next call.
  const makers = {
    linear(layer, take) {
      const { inputs, outputs } = layer, weight = take(inputs * outputs), bias = take(outputs);
      const out = new Float32Array(outputs);
      return (hidden) => {
        out.set(bias);
        accumulate(out, 0, outputs, hidden, 0, inputs, weight, 0);
        return out;
      };
    },
    relu({ slope }) {
      return (hidden) => {
        for (let i = 0; i < hidden.length; i++) if (hidden[i] < 0) hidden[i] *= slope;
        return hidden;
      };
    },
    // Statistics over a group's channels and all places.
    group_norm({ groups, channels, size, eps }, take) {
      const gain = take(channels), shift = take(channels), own = channels / groups, places = size * size;
      return (hidden) => {
        for (let first = 0; first < channels; first += own) {
          let sum = 0, squares = 0;
          for (let p = 0; p < places; p++)
            for (let c = first; c < first + own; c++) sum += hidden[p * channels + c];
          const mean = sum / (own * places);
          for (let p = 0; p < places; p++)
            for (let c = first; c < first + own; c++) squares += (hidden[p * channels + c] - mean) ** 2;
          const scale = 1 / Math.sqrt(squares / (own * places) + eps);
          for (let p = 0; p < places; p++)
            for (let c = first; c < first + own; c++)
              hidden[p * channels + c] = (hidden[p * channels + c] - mean) * scale * gain[c] + shift[c];
        }
        return hidden;
      };
    },
    // Each input pixel adds its kernel to the output, around the place that it is stretched to.
    transposed({ inputs, outputs, kernel, stride, padding, size, out_size: wide }, take) {
      const weight = take(kernel * kernel * inputs * outputs), bias = take(outputs);
      const out = new Float32Array(wide * wide * outputs);
      return (hidden) => {
        for (let at = 0; at < out.length; at += outputs) out.set(bias, at);
        for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) {
          const from = (y * size + x) * inputs;
          for (let ky = 0; ky < kernel; ky++) {
            const oy = y * stride - padding + ky;
            if (oy < 0 || oy >= wide) continue;
            for (let kx = 0; kx < kernel; kx++) {
              const ox = x * stride - padding + kx;
              if (ox < 0 || ox >= wide) continue;
              const to = (oy * wide + ox) * outputs;
              accumulate(out, to, outputs, hidden, from, inputs, weight, (ky * kernel + kx) * inputs * outputs);
            }
          }
        }
        return out;
      };
    },
  };
  const images = { // what the last layer gives, to [-1, 1]
    clamp: (value) => Math.max(-1, Math.min(1, value)),
    tanh: Math.tanh,
    sigmoid: (value) => 2 / (1 + Math.exp(-value)) - 1,
  };

  // A function that writes the embedding of a label into `to`, from a place on. A class is a number, attributes are an
  // array of 0 and 1, which subtract and add their rows; null is none, whose row is the last.
  function embedding({ kind, names, width, none }, take) {
    const count = names.length, sums = kind === "attributes" ? 1 : 0;
    const rows = take((count + sums + (none ? 1 : 0)) * width);
    return (label, to, place) => {
      const own = label === null ? count + sums : sums ? count : label;
      for (let i = 0; i < width; i++) {
        let sum = rows[own * width + i];
        if (sums && label !== null) for (let a = 0; a < count; a++) sum += (2 * label[a] - 1) * rows[a * width + i];
        to[place + i] = sum;
      }
    };
  }

  // A function from a latent, and a label where the decoder knows labels, to grey levels 0 .. 255, channels last: a
  // Uint8ClampedArray that the next call fills again.
  function decoder(spec) {
    const weights = halves(spec.data);
    let read = 0;
    const take = (count) => weights.subarray(read, (read += count));
    const layers = spec.layers.map((layer) => makers[layer.kind](layer, take)), image = images[spec.output];
    const levels = new Uint8ClampedArray(spec.image_size ** 2 * spec.channels);
    const embed = spec.labels && embedding(spec.labels, take);
    const input = embed && new Float32Array(spec.latent_dim + spec.labels.width); // [z, e(y)]
    return (z, label) => {
      let hidden = z;
      if (embed) { input.set(z); embed(label, input, z.length); hidden = input; }
      for (const layer of layers) hidden = layer(hidden);
      for (let i = 0; i < levels.length; i++) levels[i] = (image(hidden[i]) + 1) * 127.5; // rounded by the array
      return levels;
    };
  }

  // Numbers of N(0, 1) that depend on a seed alone: mulberry32, and Box and Muller 1958.
  function normals(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    const next = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { uniform, next };
  }

  // A plane that touches the sphere on which draws of N(0, I) lie: `at(x, y, z)` writes into z the draw
  // under a place. The centre is a draw, two directions are orthogonal to it and to each other.
  // A straight line on the plane is a great circle on the sphere. `uniform` chooses a mixture's component.
  function plane(seed, dims) {
    const draws = normals(seed), uniform = draws.uniform();
    const axes = [0, 1, 2].map(() => Float64Array.from({ length: dims }, draws.next));
    const length = Math.hypot(...axes[0]);
    axes.forEach((axis, place) => {
      for (const other of axes.slice(0, Math.min(place, dims - 1))) {
        const along = axis.reduce((sum, value, i) => sum + value * other[i], 0) / length ** 2;
        for (let i = 0; i < dims; i++) axis[i] -= along * other[i];
      }
      const scale = length / (Math.hypot(...axis) || 1);
      for (let i = 0; i < dims; i++) axis[i] *= scale;
    });
    const [centre, right, up] = axes;
    return {
      uniform,
      at(x, y, z) {
        const scale = 1 / Math.sqrt(1 + x * x + y * y);
        for (let i = 0; i < dims; i++) z[i] = (centre[i] + x * right[i] + y * up[i]) * scale;
      },
    };
  }

  // A mixture of Gaussians: component k's mean and the lower triangle of its covariance's root, one after another.
  function mixture({ data, cumulative }, dims) {
    const values = halves(data), each = dims + (dims * (dims + 1)) / 2;
    return (noise, uniform, truncation, z) => {
      const found = cumulative.findIndex((share) => uniform < share);
      let at = each * (found < 0 ? cumulative.length - 1 : found), root = at + dims;
      for (let i = 0; i < dims; i++) {
        let sum = 0;
        for (let j = 0; j <= i; j++) sum += values[root++] * noise[j];
        z[i] = values[at + i] + truncation * sum;
      }
    };
  }
  return { decoder, halves, mixture, plane };
})();
