// The latent walk: a place on a plane is decoded by every method, while it is dragged or moved by the arrow keys.
(() => {
  const STEP = 0.1, REACH = 2; // of an arrow key; from the centre to an edge, in lengths of a draw
  const specs = JSON.parse(document.getElementById("walks").textContent);
  document.querySelectorAll("[data-walk]").forEach((box) => start(box, specs[box.dataset.walk]));

  function start(box, decoders) {
    const find = (name) => box.querySelector(`[data-part=${name}]`);
    const pad = find("pad"), dot = find("dot"), seed = find("seed"), truncation = find("truncation"), prior = find("prior");
    const chosen = find("class"), hidden = find("hidden"), switches = [...box.querySelectorAll("[data-attribute]")];
    const methods = decoders.map((spec, place) => {
      const canvas = box.querySelector(`canvas[data-method="${place}"]`), size = spec.image_size;
      canvas.width = canvas.height = size;
      const drawn = canvas.getContext("2d").createImageData(size, size);
      drawn.data.fill(255);
      return {
        ...spec, canvas, drawn, decode: decoding.decoder(spec), z: new Float64Array(spec.latent_dim),
        noise: new Float64Array(spec.latent_dim), draw: spec.mixture && decoding.mixture(spec.mixture, spec.latent_dim),
      };
    });
    const planes = new Map(); // by the number of latents: methods that have equally many share one
    let x = 0, y = 0, asked = false, warm = false;

    function newPlane() {
      planes.clear();
      methods.forEach(({ latent_dim: dims }) => planes.has(dims) || planes.set(dims, decoding.plane(+seed.value || 0, dims)));
    }
    // What a decoder is told: a class, an array of attributes, or null for none; undefined where it knows no labels.
    function label({ labels }) {
      if (!labels) return undefined;
      if (labels.kind === "class") return chosen.value === "" ? null : +chosen.value;
      return hidden && hidden.checked ? null : switches.map((one) => +one.checked);
    }
    function decode(method) {
      const told = label(method), blank = told === null && !method.labels.none; // it was never without a label
      method.canvas.closest("figure").toggleAttribute("data-blank", blank);
      if (blank) return method.canvas.getContext("2d").clearRect(0, 0, method.image_size, method.image_size);
      const { z, noise, draw, drawn, channels } = method, plane = planes.get(method.latent_dim), scale = +truncation.value;
      plane.at(x, y, noise);
      if (draw && prior && prior.value === "mixture") draw(noise, plane.uniform, scale, z);
      else for (let i = 0; i < z.length; i++) z[i] = scale * noise[i];
      const levels = method.decode(z, told), pixels = drawn.data;
      for (let from = 0, to = 0; from < levels.length; from += channels, to += 4)
        for (let c = 0; c < 3; c++) pixels[to + c] = levels[from + (channels === 3 ? c : 0)];
      method.canvas.getContext("2d").putImageData(drawn, 0, 0);
    }
    function show() {
      asked = false;
      const began = performance.now();
      methods.forEach(decode);
      box.dataset.milliseconds = (performance.now() - began).toFixed(2);
      dot.style.left = `${50 + (50 * x) / REACH}%`;
      dot.style.top = `${50 - (50 * y) / REACH}%`;
      find("scale").textContent = (+truncation.value).toFixed(2);
      find("place").textContent = `${x.toFixed(2)}, ${y.toFixed(2)}`;
      if (warm) find("speed").textContent = `, ${box.dataset.milliseconds} ms a frame`; // the first compiles the script too
      warm = true;
    }
    const redraw = () => { if (!asked) { asked = true; requestAnimationFrame(show); } }; // once a frame, whatever moves
    const choose = () => { box.dataset.prior = prior.value; redraw(); };
    const within = (value) => Math.max(-REACH, Math.min(REACH, value));
    function move(toX, toY) { x = within(toX); y = within(toY); redraw(); }

    pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); drag(event); });
    pad.addEventListener("pointermove", (event) => { if (pad.hasPointerCapture(event.pointerId)) drag(event); });
    function drag(event) {
      const { left, top, width, height } = pad.getBoundingClientRect();
      move(((event.clientX - left) / width * 2 - 1) * REACH, (1 - (event.clientY - top) / height * 2) * REACH);
    }
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    pad.addEventListener("keydown", (event) => {
      const way = arrows[event.key], step = event.shiftKey ? 5 * STEP : STEP;
      if (way) move(x + step * way[0], y + step * way[1]);
      else if (event.key === "Home") move(0, 0);
      else return;
      event.preventDefault(); // the page does not scroll
    });
    find("new").addEventListener("click", () => { seed.value = Math.floor(Math.random() * 10000); newPlane(); redraw(); });
    seed.addEventListener("input", () => { newPlane(); redraw(); });
    truncation.addEventListener("input", redraw);
    if (prior) prior.addEventListener("change", choose);
    [chosen, hidden, ...switches].forEach((one) => one && one.addEventListener("change", redraw));
    newPlane();
    show();
  }
})();
