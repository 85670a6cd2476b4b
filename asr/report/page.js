"use strict";

// The tip under the pointer.
const tip = document.getElementById("tip");
let here = [];
document.addEventListener("pointerover", (event) => {
  const at = event.target.closest ? event.target.closest("[data-tip]") : null;
  here.forEach((mark) => mark.classList.remove("here"));
  here = [];
  tip.hidden = !at;
  if (!at) return;
  tip.textContent = at.dataset.tip;
  if (at.dataset.at) {
    here = [...document.querySelectorAll(`[data-at="${at.dataset.at}"]`)];
    here.forEach((mark) => mark.classList.add("here"));
  }
});
document.addEventListener("pointermove", (event) => {
  if (tip.hidden) return;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 18;
  const fits = below + tip.offsetHeight < innerHeight - 4;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${fits ? below : event.clientY - tip.offsetHeight - 10}px`;
});

// One utterance plays at a time, from a place to a place, with a line that goes along.
let current = null;
function stop() {
  if (!current) return;
  current.audio.pause();
  current.segment?.classList.remove("playing");
  current = null;
}
function play(audio, start, end, segment) {
  stop();
  const mine = { audio, end, segment: segment || null };
  current = mine;
  segment?.classList.add("playing");
  audio.currentTime = start;
  // The next click may have interrupted it: that one goes on.
  audio.play().catch(() => current === mine && stop());
}

for (const card of document.querySelectorAll(".utterance")) {
  const audio = card.querySelector("audio");
  const tracks = card.querySelector(".tracks");
  if (!audio || !tracks) continue;
  const seconds = Number(tracks.dataset.seconds);
  const playhead = card.querySelector(".playhead");
  const axis = card.querySelector(".axis");

  const follow = () => {
    const left = axis.offsetLeft + (axis.offsetWidth * audio.currentTime) / seconds;
    playhead.style.left = `${left}px`;
    playhead.hidden = false;
    if (current && current.audio === audio && audio.currentTime >= current.end) stop();
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", () => {
    // Its own button, not a segment: nothing else goes on playing.
    if (!current || current.audio !== audio) {
      stop();
      current = { audio, end: Infinity, segment: null };
    }
    requestAnimationFrame(follow);
  });
  audio.addEventListener("seeked", follow);
  audio.addEventListener("timeupdate", follow);
  audio.addEventListener("ended", stop);
  audio.addEventListener("pause", () => {
    // It may be heard of late, when another segment plays already.
    if (audio.paused && current && current.audio === audio) stop();
  });

  tracks.addEventListener("click", (event) => {
    const segment = event.target.closest(".seg");
    if (segment) {
      play(audio, Number(segment.dataset.start), Number(segment.dataset.end), segment);
      return;
    }
    const track = event.target.closest(".track:not(.lane)");
    if (!track) return;
    const box = track.getBoundingClientRect();
    play(audio, (seconds * (event.clientX - box.left)) / box.width, Infinity);
  });
  tracks.addEventListener("keydown", (event) => {
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" };
    const other = event.target.matches(".seg") && event.target[step[event.key]];
    if (!other) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    other.tabIndex = 0;
    other.focus();
  });
}

// Paper has no way to unfold.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((one) => (one.open = true));
});
addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));
