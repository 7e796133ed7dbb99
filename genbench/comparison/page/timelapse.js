// The time-lapse: one slider through the training of all methods. Each shows its latest grid up to that many images.
document.querySelectorAll("[data-timelapse]").forEach((box) => {
  const slider = box.querySelector("input"), button = box.querySelector("button"), said = box.querySelector("output");
  const places = box.dataset.timelapse.split(",").map(Number);
  const films = [...box.querySelectorAll(".film")].map((film) => [...film.querySelectorAll("img")]);
  let timer = 0;

  function show() {
    const images = places[slider.value], words = `${images.toLocaleString("en")} images`;
    films.forEach((frames) => {
      const past = frames.filter((frame) => +frame.dataset.images <= images);
      const now = past[past.length - 1] || frames[0];
      frames.forEach((frame) => { frame.hidden = frame !== now; });
    });
    said.textContent = words;
    slider.setAttribute("aria-valuetext", words);
  }
  function stop() { clearInterval(timer); timer = 0; button.textContent = "play"; }
  function next() {
    if (+slider.value === places.length - 1) return stop();
    slider.value = +slider.value + 1;
    return show();
  }
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (+slider.value === places.length - 1) { slider.value = 0; show(); }
    button.textContent = "pause";
    timer = setInterval(next, 700);
    return undefined;
  });
  slider.addEventListener("input", () => { stop(); show(); });
  show();
});
