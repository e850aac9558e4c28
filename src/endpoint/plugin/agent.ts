import { connect, type Socket } from 'node:net';
import { encodeFrame, FrameReader, type Reply } from '../wire.ts';

/** An agent that restarts is away for a moment only; failing the pod for that would cost the runtime a new sandbox. */
const restartGraceMs = 2000;
const retryEveryMs = 50;
/** Below a kubelet's own two minutes, so that the runtime gets an answer that it can read. */
const answerWithinMs = 90_000;
const maxReplyBytes = 4 * 1024 * 1024;

/** The agent is not there, went away, or took too long: its message says which. */
export class AgentAway extends Error {
  /** The socket's path, and what the system said. */
  readonly details: string;

  constructor(message: string, details: string) {
    super(message);
    this.details = details;
  }
}

/**
 * Asks the agent one question.
 * @param whileAway Called once where the agent is not there; when it has ended, the agent is waited for a little.
 * @throws {AgentAway} or whatever `whileAway` throws
 */
export async function askAgent(path: string, request: unknown, whileAway: () => Promise<void>): Promise<Reply> {
  const socket = await reach(path, whileAway);
  return new Promise((resolve, reject) => {
    const reader = new FrameReader(maxReplyBytes);
    const fail = (details: string) => {
      socket.destroy();
      reject(new AgentAway('the Myelin agent gave no answer', `${path}: ${details}`));
    };
    socket.setTimeout(answerWithinMs, () => fail(`no reply within ${answerWithinMs / 1000} s`));
    socket.on('error', (error) => fail(error.message));
    socket.on('close', () => fail('the connection was closed before the reply'));
    socket.on('data', (chunk: Buffer) => {
      try {
        const reply = reader.push(chunk);
        if (reply === undefined) return;
        resolve(checkReply(reply.message));
        socket.destroy();
      } catch (error) {
        fail(error instanceof Error ? error.message : String(error));
      }
    });
    socket.write(encodeFrame(request));
  });
}

async function reach(path: string, whileAway: () => Promise<void>): Promise<Socket> {
  for (let deadline: number | undefined; ; ) {
    const outcome = await new Promise<Socket | NodeJS.ErrnoException>((resolve) => {
      const socket = connect(path, () => resolve(socket.removeAllListeners('error')));
      socket.once('error', resolve);
    });
    if (!(outcome instanceof Error)) return outcome;
    if (deadline === undefined) {
      await whileAway();
      deadline = Date.now() + restartGraceMs;
    }
    const away = outcome.code === 'ENOENT' || outcome.code === 'ECONNREFUSED' || outcome.code === 'EAGAIN';
    if (!away || Date.now() >= deadline)
      throw new AgentAway(
        'the Myelin agent of this node is not running',
        `${outcome.message}; it listens there once it is up`,
      );
    await new Promise((resolve) => setTimeout(resolve, retryEveryMs));
  }
}

function checkReply(message: unknown): Reply {
  if (typeof message === 'object' && message !== null) {
    if ('result' in message) return { result: message.result };
    if ('error' in message) {
      const { error } = message;
      if (typeof error === 'object' && error !== null && 'code' in error && 'msg' in error) {
        const { code, msg } = error;
        const more = 'details' in error && typeof error.details === 'string' ? { details: error.details } : {};
        if (typeof code === 'number' && typeof msg === 'string') return { error: { code, msg, ...more } };
      }
    }
  }
  throw new TypeError('a reply that is neither a result nor an error');
}
