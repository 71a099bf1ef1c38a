/** Client of the roomcast live-room broker. README.md describes it; data has the names of SPEC.md. */

export type State = "idle" | "connecting" | "handshaking" | "open" | "waiting" | "closed";
export type Tier = "full" | "medium" | "low";
export type Role = "guest" | "viewer" | "vip" | "moderator" | "assistant" | "host" | "app";
export type Phase = "live" | "paused" | "ended";
export type Outcome =
  | "accepted" | "merged" | "sampled_out" | "limited" | "held" | "rejected" | "expired" | "unavailable" | "masked";
export type TypeName =
  | "danmaku" | "emote" | "like" | "announcement" | "gift" | "room_phase" | "media" | "messages_deleted" | "highlight"
  | (string & {});

export interface Account {
  admitted: number; shown: number; merged: number; sampled: number; expired: number; held: number;
}

export interface Entry {
  type: TypeName | number; userId: string; name: string; payload: any; count: number; senders: string[]; role: Role;
}

export interface Tick {
  number: number; atMs: number; intervalMs: number; stage: number; entries: Entry[]; account: Account;
}

export interface RoomEvent {
  offset: number; lane: number; type: TypeName | number; atMs: number; userId: string; name: string; payload: any;
}

export interface ActivityView { kind: string; id: string; data: any }

export interface Snapshot {
  room_name: string; epoch: number; offset: number; role: Role; phase: Phase; tier: Tier; interval_ms: number;
  online: number; users: number; uniques: number; peak: number; likes: number; recent: Entry[]; is_recent_cut: boolean;
  announcement: any; keys: any[]; keys_more: number; pinned: any[]; activities: ActivityView[];
  own_activities: ActivityView[]; activities_more: number;
}

export interface RoomState {
  at_ms: number; phase: Phase; stage: number; interval_ms: number; online: number; users: number; uniques: number;
  peak: number; likes: number; top_likers: [string, number][]; joins: [string, string][]; joins_more: number;
  accounts: Account[];
}

export interface PostResult {
  id: string; outcome: Outcome | null; detail: number; sent: boolean; error: string | null; retryAfterMs: number;
  reason: string; offset: number | null;
  first: { sequence: number; room_name: string; epoch: number; offset: number } | null;
}

export interface LikeCounts { waiting: number; counted: number; refused: number; unknown: number }
export interface Gap { first: number; last: number; epochChanged: boolean }

export interface RoomEvents {
  joined: { snapshot: Snapshot; recovered: boolean; isFirst: boolean };
  tick: Tick;
  event: RoomEvent;
  counter: { name: string; id: string; data: any; atMs: number };
  state: RoomState;
  decided: PostResult;
  gap: Gap;
  left: { reason: string; message: string; isFinal: boolean };
  ended: { reason: string; message: string; error?: Error };
}

export interface Direct { id: number; atMs: number; type: TypeName | number; payload: any }

export interface ClientEvents {
  state: { state: State; reason: string; code: number | null; retryInMs: number | null };
  direct: Direct;
  missed: Direct & { payload: { chat: number; ambient: number } };
  closed: { code: number | null; reason: string };
}

export interface PostOptions { id?: string; retry?: boolean; timeoutMs?: number }
export interface CallOptions { key?: string; room?: Room | null; timeoutMs?: number }

export interface Options {
  token?: string | (() => string | Promise<string>) | null;
  encoding?: "binary" | "json";
  WebSocket?: unknown;
  agent?: string;
  dictionary?: Uint8Array | (() => Promise<Uint8Array>) | false;
  dictionaries?: DictionaryCache;
  dictionaryWaitMs?: number;
  handshakeMs?: number;
  random?: () => number;
  transport?: (address: object, handlers: object) => { send(data: Uint8Array | string): void; close(code?: number): void };
}

/** Dictionaries of the deployment by SHA-256, at most four. */
export class DictionaryCache implements Iterable<[string, Uint8Array]> {
  [Symbol.iterator](): Iterator<[string, Uint8Array]>;
  readonly names: string[];
  get(name: string): Uint8Array | undefined;
  add(name: string, bytes: Uint8Array): void;
}

declare class Emitter<Events> {
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
  once<Name extends keyof Events>(name: Name): Promise<Events[Name]>;
  hasListener(name: keyof Events): boolean;
}

export class Room extends Emitter<RoomEvents> {
  readonly name: string;
  readonly tier: Tier;
  readonly role: Role | null;
  readonly phase: Phase | null;
  readonly membership: "wanted" | "requested" | "joined" | "leaving" | "ended";
  readonly isJoined: boolean;
  readonly online: number;
  readonly users: number;
  readonly likes: number;
  readonly intervalMs: number;
  readonly snapshot: Snapshot | null;
  readonly account: Account;
  readonly position: { epoch: number; offset: number } | null;
  readonly duplicates: number;
  readonly likeCounts: LikeCounts;
  post(type: TypeName | number, payload: object, options?: PostOptions): Promise<PostResult>;
  say(text: string, style?: [number, number, number] | null): Promise<PostResult>;
  like(count?: number): void;
  call(operation: string, args?: object, options?: CallOptions): Promise<any>;
  leave(): Promise<void>;
}

export class Client extends Emitter<ClientEvents> {
  constructor(url: string, options?: Options);
  readonly state: State;
  readonly user: { user_id: string; name: string; expires_at_ms: number } | null;
  readonly server: { server: string; max_rooms: number; server_ms: number } | null;
  readonly customTypes: { type: number; name: string; lane: string }[];
  readonly rooms: Map<string, Room>;
  readonly rttMs: number | null;
  readonly missedChat: number;
  readonly closed: ClosedError | null;
  opened(options?: { timeoutMs?: number }): Promise<void>;
  join(name: string, options?: { tier?: Tier; timeoutMs?: number }): Promise<Room>;
  call(operation: string, args?: object, options?: CallOptions): Promise<any>;
  changeToken(token: string): Promise<{ user_id: string; name: string; expires_at_ms: number }>;
  serverNow(): number;
  close(): void;
}

export function connect(url: string, options?: Options): Client;
export function newGuestToken(): string;

export class ArgumentError extends Error {}
export class ProtocolError extends Error { readonly code: number }
export class ClosedError extends Error { readonly code: number | null }
export class NoAnswerError extends Error { readonly sent: boolean }
export class RequestError extends Error {
  readonly code: number; readonly error: string; readonly field: string; readonly retryAfterMs: number;
}
