// The front door's metrics as numbers. It knows Prometheus' text, and no metric.

/** Samples of a metric: `[{labels, value}]`. */
export function samplesOf(page, name) {
  const found = [];
  for (const line of page.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (match?.[1] !== name) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value]));
    found.push({ labels, value: Number(match[3]) });
  }
  return found;
}

/** A histogram's buckets, those of all its labels together: `[{le, count}]`, cumulative. */
export function bucketsOf(page, name, wanted) {
  const counts = new Map();
  for (const { labels, value } of samplesOf(page, `${name}_bucket`)) {
    if (!Object.entries(wanted).every(([key, word]) => labels[key] === word)) continue;
    const le = labels.le === "+Inf" ? Infinity : Number(labels.le);
    counts.set(le, (counts.get(le) ?? 0) + value);
  }
  return [...counts].map(([le, count]) => ({ le, count })).sort((a, b) => a.le - b.le);
}

/** What was added since `before`; all of it where that was another process's. */
export function since(buckets, before) {
  const old = new Map(before.map(({ le, count }) => [le, count]));
  const fresh = buckets.map(({ le, count }) => ({ le, count: count - (old.get(le) ?? 0) }));
  return fresh.some(({ count }) => count < 0) ? buckets : fresh;
}

/** As PromQL's histogram_quantile: straight lines inside the buckets. null without samples. */
export function quantile(buckets, share) {
  const total = buckets.at(-1)?.count ?? 0;
  if (!total) return null;
  let [low, below] = [0, 0];
  for (const { le, count } of buckets) {
    if (count >= share * total) return le === Infinity ? low : low + ((share * total - below) / (count - below || 1)) * (le - low);
    [low, below] = [le, count];
  }
  return low;
}

/** The share at or below `limit`. */
export function shareBelow(buckets, limit) {
  const total = buckets.at(-1)?.count ?? 0;
  if (!total) return null;
  let [low, below] = [0, 0];
  for (const { le, count } of buckets) {
    if (le >= limit) return (below + (le === Infinity ? 0 : ((limit - low) / (le - low)) * (count - below))) / total;
    [low, below] = [le, count];
  }
  return 1;
}
