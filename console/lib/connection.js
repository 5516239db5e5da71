// Who looks, and the one client that the whole page uses.
import { Tidings } from "/console/vendor/tidings.js";
import { read, write } from "/console/lib/words.js";

const TOKEN = "tidings.token";
const NAME = "tidings.name";

/** @type {{ tidings: Tidings, dev: boolean, admin: boolean, user: string | null, demo: boolean } | undefined} */
export let me;

/** What the server asks of who comes, as it wrote into the page: in dev mode a name, else a token. */
export const dev = document.documentElement.dataset.mode === "dev";

/** For this tab alone: a token is not left lying about. */
export function keptToken() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

function keepToken(token) {
  try {
    if (token) sessionStorage.setItem(TOKEN, token);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    // Asked for again.
  }
}

export function keptName() {
  return new URLSearchParams(location.search).get("user") ?? read(NAME);
}

/** Fails with a `Problem` when the server does not let one in. */
export async function enter({ token, user }) {
  const tidings = new Tidings(location.origin, { ...(token ? { token } : { user }), onError: (error) => console.warn("tidings:", error) });
  const claims = token ? claimsOf(token) : null;
  // What no JWT names is an API key. The server decides; this only saves questions that it would refuse.
  const admin = !claims || (Array.isArray(claims.roles) && claims.roles.includes("admin"));
  let stats;
  try {
    stats = admin ? await tidings.request("GET", "/v1/stats") : void (await tidings.tasks.list({ limit: 1 }));
  } catch (problem) {
    tidings.dispose();
    throw problem;
  }
  if (token) keepToken(token);
  else write(NAME, user);
  me = { tidings, dev: !token, admin, user: user ?? (typeof claims?.sub === "string" ? claims.sub : null), demo: Boolean(stats?.demo) };
  tidings.connect();
  return me;
}

export function leave() {
  me?.tidings.dispose();
  me = undefined;
  keepToken(null);
  write(NAME, null);
}

/** What a JWT says; shown, never trusted. */
function claimsOf(token) {
  try {
    const text = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (char) => char.charCodeAt(0))));
    return claims && typeof claims === "object" ? claims : null;
  } catch {
    return null;
  }
}
