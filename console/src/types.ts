// What the API answers, as far as the console reads it. 64-bit numbers are text.

export interface Workspace {
  name: string;
  uid: string;
  state: string;
  spec?: {
    repository?: string;
    revision?: string;
    ttl?: string;
    idleTimeout?: string;
    limits?: { memoryBytes?: string; processes?: number; milliCpus?: number };
  };
  labels?: Record<string, string>;
  branch?: string;
  baseCommit?: string;
  headCommit?: string;
  driver?: string;
  creator?: string;
  progress?: { phase?: string; done?: string; total?: string };
  failure?: { reason?: string; message?: string; remedy?: string };
  warnings?: string[];
  createTime?: string;
  lastActiveTime?: string;
  expireTime?: string;
  purgeTime?: string;
  etag?: string;
  source?: string;
  cause?: string;
}

export interface Spec {
  argv?: string[];
  script?: string;
  terminal?: { rows: number; cols: number };
}

export interface Exit {
  code?: number;
  signal?: { number: number };
  timedOut?: object;
  limit?: { which?: string };
  cancelled?: { by?: string };
  lost?: { reason?: string };
  startTime?: string;
  endTime?: string;
  outputBytes?: string;
}

export interface Execution {
  name: string;
  spec?: Spec;
  state: string;
  exit?: Exit;
  createTime?: string;
  startTime?: string;
  outputBytes?: string;
  inputBytes?: string;
}

export interface File {
  path: string;
  rawPath?: string;
  kind: string;
  size?: string;
  mode?: number;
  etag?: string;
  linkTarget?: string;
}

export interface Usage {
  cpuTime?: string;
  memoryBytes?: string;
  processes?: number;
  writtenBytes?: string;
}

export interface Snapshot {
  name: string;
  headCommit?: string;
  createTime?: string;
}

export interface StatusEntry {
  path: string;
  oldPath?: string;
  indexState?: string;
  workState?: string;
}

export interface WorktreeStatus {
  branch?: string;
  headCommit?: string;
  ahead?: number;
  behind?: number;
  entries?: StatusEntry[];
  total?: number;
}

export interface Commit {
  id: string;
  message: string;
  author?: { name?: string; time?: string };
}
