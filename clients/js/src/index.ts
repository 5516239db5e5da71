/** The JavaScript client of Tidings. */
export { Tidings, type Online, type Page } from "./tidings.js";
export { Problem, type FieldError } from "./problem.js";
export type { Subscription, Handlers } from "./subscription.js";
export type { Inbox, InboxCounts, InboxHandlers, Notice } from "./inbox.js";
export type { Item, Submission, Task, TaskStatus, Tasks } from "./tasks.js";
export type { CursorStorage, Options, State, Status, TokenSource, Way } from "./options.js";
export type { Class, Draft, Gap, Message, Priority, Published, Reset, Welcome } from "./wire.js";
export type { Ask } from "./http.js";
