// A manifest of transcripts: CSV with the header `file,text`, or one `{"file": …, "text": …}` a line.

/** Words by file name. Raises an Error in words for what is neither. */
export function parseManifest(name, text) {
  try {
    const rows = /\.jsonl$/i.test(name) ? text.trim().split("\n").map(JSON.parse) : csv(text);
    return new Map(rows.map((row) => [row.file.split("/").at(-1), row.text.trim()]));
  } catch {
    throw new Error(`${name} cannot be read: it must be a CSV with the header file,text, or JSON lines with file and text.`);
  }
}

function csv(text) {
  const rows = [];
  let row = [];
  for (const [, quoted, plain, end] of text.replace(/^\uFEFF/, "").matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    row.push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end === ",") continue;
    if (row.some(Boolean)) rows.push(row);
    row = [];
  }
  const [head, ...body] = rows;
  return body.map((cells) => Object.fromEntries(head.map((name, i) => [name.trim(), cells[i]])));
}
