// A small form: fields are {name, label, type, value, options, min, max, hint, required}; onsubmit gets their values.
import { el } from "../base/dom.js";

export function form(fields, submit, run) {
  const inputs = new Map();
  const error = el("p.bad-text", { role: "alert", hidden: true });
  const button = el("button.btn.primary", { type: "submit" }, submit);
  const rows = fields.map((field) => {
    const input = makeInput(field);
    inputs.set(field.name, input);
    return el("label.stack", {}, field.label, input);
  });
  const node = el("form.form", { onsubmit }, rows, button, error);
  async function onsubmit(event) {
    event.preventDefault();
    error.hidden = true;
    button.disabled = true;
    try { await run(values()); } catch (problem) {
      error.textContent = problem.field ? `${problem.field}: ${problem.message}` : problem.message || problem.code;
      error.hidden = false;
      inputs.get(problem.field)?.focus();
    } finally { button.disabled = false; }
  }
  const values = () => Object.fromEntries([...inputs].map(([name, input]) => [name, read(input)]));
  return { node, values, input: (name) => inputs.get(name) };
}

function makeInput({ name, type = "text", value = "", options, min, max, step, hint, required }) {
  if (options) return el("select.field", { name, value }, options.map(([key, label]) => el("option", { value: key, selected: key === value }, label)));
  return el("input.field", { name, type, value: String(value), min, max, step, placeholder: hint, required, autocomplete: "off", maxlength: type === "text" ? max : undefined });
}

const read = (input) => (input.type === "number" ? (input.value === "" ? null : Number(input.value)) : input.value.trim());
