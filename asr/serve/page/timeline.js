// A window onto the time of a recording: waveform, words, phones and posteriorgram on one axis.

// Pixels to a second that leave words readable.
const LEAST_PX_S = 110;
const RULER = 18;
const ROW = 16;
// A label has a row where it is so probable somewhere, and there are at most so many.
const NAMED = 0.1;
const MOST_ROWS = 24;
// What is asked at once: the server's most.
const MOST_S = 60;

export function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, '0')}`;
}

export function sureness(segment) {
  return Math.min(4, Math.floor(5 * (segment.confidence ?? 1)));
}

// Arrow keys go from one of some buttons to the next; Tab leaves them.
export function walk(event, buttons) {
  const at = buttons.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || to === undefined || !buttons[to]) return;
  event.preventDefault();
  for (const button of buttons) button.tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
}

// The highest of the peaks from one to another, in n parts.
export function highest(peaks, n, from, to) {
  const step = (to - from) / n;
  return Array.from({ length: n }, (_, i) => {
    const first = Math.floor(from + i * step);
    return peaks.subarray(first, Math.max(first + 1, from + (i + 1) * step)).reduce((a, b) => Math.max(a, b), 0);
  });
}

// A pen for a canvas at the screen's own resolution, in CSS pixels.
function penOf(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext('2d');
  pen.scale(ratio, ratio);
  return [pen, width, height];
}

const colour = (canvas, name) => getComputedStyle(canvas).getPropertyValue(name);

// Bars of levels in [0, 1], each three pixels wide, in the colours that their numbers have.
export function bars(canvas, levels, named, left = 0, top = 0) {
  const [pen, , height] = penOf(canvas);
  const colours = {};
  levels.forEach((level, i) => {
    const name = named(i);
    pen.fillStyle = colours[name] ??= colour(canvas, name);
    const high = Math.max(1.5, level * (height - top - 4));
    pen.beginPath();
    pen.roundRect(left + 3 * i, top + (height - top - high) / 2, 2, high, 1);
    pen.fill();
  });
  return pen;
}

// hear(segment), jump(seconds, plays): play. emissions(start, end): what the server says. say(text).
export function makeTimeline(root, { hear, jump, emissions, say }) {
  const part = (selector) => root.querySelector(selector);
  const [wave, heat, playhead] = [part('.wave'), part('.posteriors'), part('.playhead')];
  const lanes = Object.fromEntries([...root.querySelectorAll('.lane')].map((lane) => [lane.dataset.lane, lane]));
  let content = null;
  let start = 0;
  let now = 0;
  let found = null;
  let asking = 0;
  // Buttons in the lanes with their segments, and those that are lit.
  let placed = [];

  const gutter = () => lanes.words.offsetLeft;
  const inner = () => Math.max(1, wave.clientWidth - gutter());
  const span = () => Math.min(content.transcript.duration, inner() / LEAST_PX_S) || 1;
  const isLong = () => Boolean(content) && span() < content.transcript.duration;
  const end = () => Math.min(start + span(), content.transcript.duration);
  const xOf = (seconds) => gutter() + ((seconds - start) / span()) * inner();
  const secondsAt = (event) => start + ((event.clientX - wave.getBoundingClientRect().left - gutter()) / inner()) * span();

  function fill(transcript, words, unit, peaks, peaks_s) {
    if (content?.transcript !== transcript) {
      start = 0;
      found = null;
    }
    content = { transcript, words, unit, peaks, peaks_s };
    const labels = transcript.words.length ? transcript.labels : [];
    part('.show-labels').textContent = `${labels.length} ${transcript.unit}s`;
    part('.show-labels').hidden = !labels.length;
    lanes.labels.dataset.name = `${transcript.unit}s`;
    lanes.labels.setAttribute('aria-label', `${transcript.unit}s under the waveform`);
    lanes.words.dataset.name = unit;
    wave.setAttribute('aria-label', `Waveform of ${clock(transcript.duration)}`);
    draw();
  }

  function draw() {
    if (!content || !wave.clientWidth) return;
    start = Math.max(0, Math.min(start, content.transcript.duration - span()));
    part('.turn').hidden = !isLong();
    placed = [];
    put(lanes.words, content.words);
    put(lanes.labels, content.transcript.labels);
    follow(now, false);
    drawHeat();
  }

  function put(lane, segments) {
    if (lane.hidden) return;
    const visible = segments.filter((segment) => segment.end_s > start && segment.start_s < end());
    const buttons = visible.map((segment, index) => {
      const button = document.createElement('button');
      const [from, to] = [Math.max(segment.start_s, start), Math.min(segment.end_s, end())];
      button.type = 'button';
      button.className = `c${sureness(segment)}`;
      const pixels = ((to - from) / span()) * inner();
      button.setAttribute('aria-label', segment.label);
      // Letters are some 8 pixels wide, small ones 6; what has no room is told by its title.
      button.textContent = 6 * segment.label.length > pixels ? '' : segment.label;
      button.classList.toggle('small', 8 * segment.label.length > pixels);
      button.tabIndex = index ? -1 : 0;
      button.title = `${segment.label}: ${segment.start_s.toFixed(2)} to ${segment.end_s.toFixed(2)} s, confidence ${(segment.confidence ?? 1).toFixed(2)}`;
      button.style.left = `${(100 * (from - start)) / span()}%`;
      button.style.width = `${(100 * (to - from)) / span()}%`;
      button.addEventListener('click', () => hear(segment));
      placed.push({ button, segment });
      return button;
    });
    lane.replaceChildren(...buttons);
    lane.onkeydown = (event) => walk(event, buttons);
  }

  function drawWave() {
    const { peaks, peaks_s: rate } = content;
    const n = Math.floor(inner() / 3);
    const levels = peaks ? highest(peaks, n, start * rate, end() * rate) : new Array(n).fill(0);
    const pen = bars(wave, levels, (i) => (start + (i / n) * span() < now ? '--accent' : '--wave'), gutter(), RULER);
    pen.fillStyle = colour(wave, '--faint');
    pen.font = '11px Inter, system-ui, sans-serif';
    pen.textAlign = 'center';
    const step = [0.1, 0.2, 0.5, 1, 2].find((s) => (s / span()) * inner() > 64) ?? 5;
    for (let tick = Math.ceil(start / step); tick * step <= end(); tick += 1) {
      const x = Math.max(gutter() + 14, Math.min(xOf(tick * step), wave.clientWidth - 20));
      const seconds = tick * step;
      pen.fillText(content.transcript.duration < 60 ? `${seconds.toFixed(1)} s` : clock(seconds), x, 11);
    }
  }

  function follow(seconds, isPlaying) {
    now = seconds;
    if (!content || !wave.clientWidth) return;
    if (isPlaying && (now < start || now >= end()) && isLong()) {
      start = now;
      draw();
    }
    drawWave();
    playhead.hidden = now < start || now > end();
    playhead.style.left = `${xOf(now)}px`;
    for (const { button, segment } of placed) {
      button.classList.toggle('playing', isPlaying && segment.start_s <= now && now < segment.end_s);
    }
    read(now);
  }

  // --- posteriors

  async function fetchAll() {
    const { transcript } = content;
    const isWhole = transcript.duration <= MOST_S / 2;
    const [from, to] = isWhole ? [0, transcript.duration] : [start, end()];
    if (found?.transcript === transcript && found.from <= from && found.to >= to) return;
    const number = asking += 1;
    try {
      const answer = { ...await emissions(from, to), transcript, from, to };
      if (number === asking) found = answer;
    } catch (error) {
      say(error.message);
    }
  }

  async function drawHeat() {
    if (heat.hidden) return;
    heat.setAttribute('aria-busy', 'true');
    await fetchAll();
    heat.removeAttribute('aria-busy');
    if (!found || found.transcript !== content.transcript || heat.hidden) return;
    const { shift, first, labels, probabilities } = found;
    const rows = rowsOf();
    heat.style.height = `${ROW * rows.length}px`;
    const [pen, , height] = penOf(heat);
    pen.fillStyle = colour(heat, '--soft');
    pen.globalAlpha = 0.45;
    pen.fillRect(gutter(), 0, inner(), height);
    pen.font = '11px ui-monospace, "DejaVu Sans Mono", monospace';
    pen.textAlign = 'right';
    pen.textBaseline = 'middle';
    const wide = (shift / span()) * inner();
    rows.forEach(({ label }, row) => {
      pen.globalAlpha = 1;
      pen.fillStyle = colour(heat, '--faint');
      pen.fillText(label ? labels[label] : 'blank', gutter() - 9, ROW * (row + 0.5));
      pen.fillStyle = colour(heat, label ? '--accent' : '--wave');
      for (const [frame, at] of framesSeen()) {
        const p = probabilities[frame * labels.length + label];
        if (p < 0.01) continue;
        const left = Math.max(gutter(), xOf(at - shift / 2));
        pen.globalAlpha = p;
        pen.fillRect(left, ROW * row + 1, Math.min(wide + 0.3, wave.clientWidth - left), ROW - 2);
      }
      pen.globalAlpha = 1;
    });
    const names = rows.map(({ label }) => (label ? labels[label] : 'blank')).join(' ');
    heat.setAttribute('aria-label', `Posteriorgram from ${clock(start)} to ${clock(end())}: the probability of ${names} over time`);
    heat.dataset.rows = names;
    read(now);
    function* framesSeen() {
      const n = probabilities.length / labels.length;
      for (let frame = 0; frame < n; frame += 1) {
        const at = first + shift * frame;
        if (at > start - shift && at < end() + shift) yield [frame, at];
      }
    }
    // The labels that are probable somewhere, in the order in which they are; the blank is last.
    function rowsOf() {
      const seen = labels.map((_, label) => ({ label, most: 0, at: 0 }));
      for (const [frame, at] of framesSeen()) {
        for (const each of seen) {
          const p = probabilities[frame * labels.length + each.label];
          if (p > each.most && each.most < 0.5) Object.assign(each, { most: p, at });
        }
      }
      const strong = seen.filter(({ label, most }) => label && most > NAMED);
      strong.sort((a, b) => b.most - a.most).splice(MOST_ROWS);
      strong.sort((a, b) => a.at - b.at);
      return seen[0].most > NAMED ? [...strong, seen[0]] : strong;
    }
  }

  // What is probable at a time, in words.
  function read(seconds) {
    const readout = part('.readout');
    if (heat.hidden || found?.transcript !== content?.transcript) {
      readout.textContent = '';
      return;
    }
    const size = found.labels.length;
    const frame = Math.round((seconds - found.first) / found.shift);
    const row = found.probabilities.subarray(Math.max(0, frame) * size, (Math.max(0, frame) + 1) * size);
    const best = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 3).filter((label) => row[label] >= 0.01);
    const told = best.map((label) => `${label ? found.labels[label] : 'blank'} ${Math.round(100 * row[label])} %`);
    readout.textContent = `${seconds.toFixed(2)} s: ${told.join(', ')}`;
  }

  function turn(direction) {
    start += direction * 0.9 * span();
    draw();
  }

  function toggles(button, what) {
    button.addEventListener('click', () => {
      what.hidden = !what.hidden;
      button.setAttribute('aria-pressed', String(!what.hidden));
      draw();
    });
  }

  toggles(part('.show-labels'), lanes.labels);
  toggles(part('.show-posteriors'), heat);
  part('.earlier').addEventListener('click', () => turn(-1));
  part('.later').addEventListener('click', () => turn(1));
  for (const canvas of [wave, heat]) canvas.addEventListener('click', (event) => jump(secondsAt(event), true));
  heat.addEventListener('pointermove', (event) => read(secondsAt(event)));
  heat.addEventListener('pointerleave', () => read(now));
  new ResizeObserver(draw).observe(wave);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

  return { fill, follow, draw, isLong };
}
