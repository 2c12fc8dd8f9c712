// Where the page's data come from: a server, or the files of a report, which a browser reads as scripts alone.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function openData() {
  const isReport = location.protocol === "file:" || !document.querySelector('script[type="module"]');
  const source = isReport ? reportSource() : serverSource();
  // All at once; decisions are for whoever opens the page next.
  const [facts, columns, decisions] = [source.read("facts"), source.readColumns(), source.read("decisions")];
  return dataOf(source, await facts, await columns, decisions);
}

function dataOf(source, facts, columns, firstDecisions) {
  const chunks = new Map();
  return {
    ...source,
    facts,
    isLive: facts.mode === "live",
    firstDecisions,
    columns: parseColumns(columns, facts.pictures, facts.suggestions),
    thumbnail: (number) => `data/thumbnails/${number}.jpg?v=${facts.version}`,
    picture: (number) => `data/${facts.mode === "live" ? "pictures" : "thumbnails"}/${number}.jpg?v=${facts.version}`,
    // The row of a picture: {id, scores, thresholds}. The last chunks that were asked for are kept.
    async row(number) {
      const chunk = Math.floor(number / facts.chunk);
      if (!chunks.has(chunk)) {
        chunks.set(chunk, source.read(`rows/${chunk}`));
        if (chunks.size > 400) chunks.delete(chunks.keys().next().value);
      }
      try {
        const rows = await chunks.get(chunk);
        const place = number - chunk * facts.chunk;
        return { id: rows.ids[place], scores: rows.scores[place], thresholds: rows.thresholds[place] };
      } catch (error) {
        chunks.delete(chunk); // so that it can be asked for again
        throw error;
      }
    },
  };
}

function serverSource() {
  async function answer(path, options) {
    const response = await fetch(`data/${path}`, { cache: "no-store", ...options });
    if (response.ok) return response;
    let message = `the server answers ${response.status}`;
    try {
      const text = await response.text();
      message = response.headers.get("content-type")?.includes("json") ? JSON.parse(text).error : text;
    } catch {
      // the status has to do
    }
    throw new Refused(response.status, message);
  }
  return {
    read: async (name) => (await answer(`${name}.json`)).json(),
    readColumns: async () => (await answer("columns.bin")).arrayBuffer(),
    changes: async (revision) => (await answer(`changes.json?since=${revision}`)).json(),
    heatmap: async (number, tag, width, height) =>
      (await answer(`heatmaps/${number}.json?${new URLSearchParams({ tag, width, height })}`)).json(),
    send: async (act, body) =>
      (
        await answer(act, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(body),
        })
      ).json(),
  };
}

function reportSource() {
  const waiting = new Map();
  window.taiReport = (name, value) => waiting.get(name)?.(value);
  function read(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      waiting.set(name, (value) => {
        waiting.delete(name);
        script.remove();
        resolve(value);
      });
      script.onerror = () => reject(new Error(`data/${name}.js is missing from this report`));
      script.src = `data/${name}.js`;
      document.head.append(script);
    });
  }
  return {
    read,
    readColumns: async () => {
      const text = atob(await read("columns"));
      const bytes = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
      return bytes.buffer;
    },
  };
}

// Suggestions of picture n: offsets[n] to offsets[n + 1] of the other columns. Typed arrays take the machine's order of
// bytes, which is little-endian wherever browsers run.
function parseColumns(buffer, pictures, suggestions) {
  let start = 0;
  const take = (kind, length) => {
    const column = new kind(buffer, start, length);
    start += column.byteLength;
    return column;
  };
  return {
    offsets: take(Uint32Array, pictures + 1),
    classes: take(Uint32Array, suggestions),
    values: take(Float32Array, suggestions),
    doubts: take(Float32Array, suggestions),
    flags: take(Uint8Array, suggestions),
  };
}
