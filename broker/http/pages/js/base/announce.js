// One polite voice for the page, in #announcer: sentences wait their turn, three seconds apart, the newest four.
import { $ } from "./dom.js";

const waiting = [];
let timer = 0;

export function announce(text) {
  waiting.push(text);
  if (waiting.length > 4) waiting.shift();
  if (timer) return;
  speak();
  timer = setInterval(speak, 3000);
}

function speak() {
  const region = $("#announcer"), next = waiting.shift();
  if (region && next !== undefined) region.textContent = next;
  else { clearInterval(timer); timer = 0; }
}
