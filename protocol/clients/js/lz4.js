// Decompression of lz4 blocks, with a dictionary or without one. Every length and offset is checked.
import { CLOSE, ProtocolError } from "./errors.js";

const MIN_MATCH = 4;
const EMPTY = new Uint8Array(0);

function corrupt() {
  return new ProtocolError(CLOSE.BAD_COMPRESSION, "block is corrupt");
}

/**
 * Return the `size` bytes that the block `source` holds.
 * @param {Uint8Array} source
 * @param {number} size the raw size, which the caller has checked against its cap
 * @param {Uint8Array} [dictionary] bytes right before the output, which matches may reach
 * @throws {ProtocolError} BAD_COMPRESSION
 */
export function decompressBlock(source, size, dictionary = EMPTY) {
  const output = new Uint8Array(size);
  const end = source.length;
  let read = 0;
  let written = 0;
  const length = (start) => {
    let total = start;
    if (start !== 15) return total;
    let byte;
    do {
      if (read >= end) throw corrupt();
      byte = source[read++];
      total += byte;
    } while (byte === 255);
    return total;
  };
  for (;;) {
    if (read >= end) throw corrupt();
    const token = source[read++];
    const literals = length(token >> 4);
    if (literals > end - read || literals > size - written) throw corrupt();
    output.set(source.subarray(read, read + literals), written);
    read += literals;
    written += literals;
    if (read === end) break;
    if (end - read < 2) throw corrupt();
    const offset = source[read] | (source[read + 1] << 8);
    read += 2;
    let count = length(token & 15) + MIN_MATCH;
    if (offset === 0 || offset > written + dictionary.length || count > size - written) throw corrupt();
    let from = written - offset;
    for (; from < 0 && count > 0; count--) output[written++] = dictionary[dictionary.length + from++];
    for (; count > 0; count--) output[written++] = output[from++];
  }
  if (written !== size) throw new ProtocolError(CLOSE.BAD_COMPRESSION, "block does not yield its raw size");
  return output;
}
