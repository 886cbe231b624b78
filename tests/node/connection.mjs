import { readFileSync } from "node:fs";

// The server that a test names by REDIS_URL, or by another URL; of TLS with the options of OnCue's own URLs.
export function connectionOf(given) {
  const url = new URL(given);
  const file = (name) => url.searchParams.has(name) ? readFileSync(url.searchParams.get(name)) : undefined;
  return {
    host: url.hostname,
    port: Number(url.port || 6379),
    db: Number(url.pathname.slice(1) || 0),
    ...(url.username && { username: url.username, password: url.password }),
    ...(url.protocol === "rediss:" && { tls: { ca: file("ssl_ca_certs"), cert: file("ssl_certfile"), key: file("ssl_keyfile") } }),
  };
}

export const connection = process.env.REDIS_URL ? connectionOf(process.env.REDIS_URL) : undefined;
