// Asking the server: JSON in, JSON out; what goes wrong is an Error with the server's sentence.
"use strict";

const Asking = (() => {
  async function refused(response) {
    let said = `The server answered ${response.status}.`;
    try { said = (await response.json()).error || said; } catch { /* no JSON: the status has to do */ }
    throw new Error(said);
  }

  async function fetched(path, options) {
    try {
      return await fetch(path, { credentials: "same-origin", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is gazetteer explore still running?");
    }
  }

  async function get(path) {
    const response = await fetched(path, {});
    return response.ok ? response.json() : refused(response);
  }

  function posted(value, signal) {
    return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value), signal };
  }

  async function post(path, value, signal) {
    const response = await fetched(path, posted(value, signal));
    return response.ok ? response.json() : refused(response);
  }

  /** Lines of JSON as they come; `each` is called with every one. */
  async function lines(path, value, each) {
    const response = await fetched(path, posted(value));
    if (!response.ok) return refused(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value: text } = await reader.read();
      if (done) return;
      const parts = (rest + text).split("\n");
      rest = parts.pop();
      for (const line of parts) {
        const found = JSON.parse(line);
        if (found.kind === "error") throw new Error(found.error);
        each(found);
      }
    }
  }

  /** A whole number with all its digits: seeds are longer than a JavaScript number. */
  function whole(text) {
    return /^\d+$/.test(text) && BigInt(text) < 2n ** 63n ? String(BigInt(text)) : null;
  }

  return { get, post, lines, whole };
})();
