// Lanes of the flying comments: where one may start without ever touching another. Pure: no canvas, clock or random numbers.
// An item is {w, v, x, lane}: width and left edge in CSS pixels, speed in pixels a second towards the left.

export class Lanes {
  /** `gap`: smallest distance of two items of a lane in CSS pixels. */
  constructor({ gap = 24 } = {}) {
    this.gap = gap;
    this.width = 0;
    this.lanes = [];
  }

  /** Sets the size of the field. A wider or narrower field is empty again, since no item fits both; lanes that are gone lose their items. */
  resize(width, laneCount) {
    if (width !== this.width) this.clear();
    this.width = width;
    while (this.lanes.length > laneCount) this.lanes.pop();
    while (this.lanes.length < laneCount) this.lanes.push([]);
  }

  /** Returns whether an item of speed `v` may start at the right edge of `lane` now. */
  fits(lane, v) {
    for (const other of this.lanes[lane]) {
      const right = other.x + other.w;
      if (this.width - right < this.gap) return false;                               // its end is not in the field yet
      if (v > other.v && this.width - v * (right / other.v) < this.gap) return false; // it would be caught up with before it is out
    }
    return true;
  }

  /** Puts an item on the first lane in [from, to) that takes it; false when none does. */
  place(item, from, to) {
    for (let lane = from; lane < to; lane += 1) {
      if (!this.fits(lane, item.v)) continue;
      item.lane = lane;
      item.x = this.width;
      this.lanes[lane].push(item);
      return true;
    }
    return false;
  }

  /** Moves all by `dt` seconds and drops those that are out. */
  advance(dt) {
    for (const lane of this.lanes) {
      let kept = 0;
      for (const item of lane) {
        item.x -= item.v * dt;
        if (item.x + item.w > 0) lane[kept++] = item;
      }
      lane.length = kept;
    }
  }

  /** Removes the items for which `isGone(item)` is true. */
  remove(isGone) {
    for (const lane of this.lanes) {
      const left = lane.filter((item) => !isGone(item));
      lane.length = 0;
      lane.push(...left);
    }
  }

  get flying() { return this.lanes.reduce((sum, lane) => sum + lane.length, 0); }

  /** How many danmaku of mean width `w` and speed `v` fit through the field in a second. */
  capacity(w, v) { return this.lanes.length * v / (w + this.gap); }

  clear() { for (const lane of this.lanes) lane.length = 0; }
}

/** Smallest tier of the wire, in danmaku a second, that fills a screen of this capacity. */
export function tierFor(capacity) {
  const wanted = 1.5 * capacity;
  return wanted > 10 ? "full" : wanted > 5 ? "medium" : "low";
}
