// Who looks, and the one client that the whole page uses.
import { Tidings } from "/console/vendor/tidings.js";
import { read, write } from "/console/lib/words.js";

const TOKEN = "tidings.token";
const NAME = "tidings.name";

/** @type {{ tidings: Tidings, dev: boolean, admin: boolean, user: string | null, demo: boolean } | undefined} */
export let me;

/** What the server asks of who comes: `dev` a name, else a token. */
export async function door() {
  const response = await fetch("/v1/stats", { cache: "no-store", credentials: "omit" });
  if (response.ok || response.status === 403) return { dev: true };
  if (response.status === 401) return { dev: false };
  throw new Error(`${response.status}`);
}

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
  let stats;
  try {
    stats = await tidings.request("GET", "/v1/stats");
  } catch (problem) {
    // A user with fewer rights is let in, and sees what is his.
    if (problem.status !== 403) {
      tidings.dispose();
      throw problem;
    }
  }
  if (token) keepToken(token);
  else write(NAME, user);
  me = { tidings, dev: !token, admin: stats !== undefined, user: user ?? subject(token), demo: Boolean(stats?.demo) };
  tidings.connect();
  return me;
}

export function leave() {
  me?.tidings.dispose();
  me = undefined;
  keepToken(null);
  write(NAME, null);
}

/** Whom a JWT names; shown, never trusted. */
function subject(token) {
  try {
    const claims = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    return typeof claims.sub === "string" ? claims.sub : null;
  } catch {
    return null;
  }
}
