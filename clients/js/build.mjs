// The client in one file, for pages without a bundler.
import { build } from "esbuild";

await build({
  entryPoints: ["src/index.ts"],
  outfile: "dist/tidings.js",
  bundle: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  banner: { js: "// The JavaScript client of Tidings, made from clients/js. MIT OR Apache-2.0." },
});
