// A PBTX client as its users write them: keys and signatures of eosjs, messages of protobufjs, requests of fetch.
// Nothing here knows Florin. Usage: node client.mjs NETWORK CREDENTIALS URL OTHER_URL
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import conversions from 'eosjs/dist/eosjs-key-conversions.js';
import { KeyType } from 'eosjs/dist/eosjs-numeric.js';
import { SerialBuffer } from 'eosjs/dist/eosjs-serialize.js';
import protobuf from 'protobufjs';

const [networkId, credentials, url, otherUrl] = process.argv.slice(2);
const proto = (name) => fileURLToPath(new URL(`../../proto/${name}.proto`, import.meta.url));
const root = protobuf.loadSync([proto('pbtx'), proto('pbtxrpc')]);
const [Permission, Body, Transaction] =
  ['Permission', 'TransactionBody', 'Transaction'].map((name) => root.lookupType(`pbtx.${name}`));
const [RegisterAccount, GetSeq, RequestResponse, AccountSeqData] =
  ['RegisterAccount', 'GetSeq', 'RequestResponse', 'AccountSeqData'].map((name) => root.lookupType(`pbtxrpc.${name}`));
const Status = root.lookupEnum('pbtxrpc.RequestResponse.StatusCode').values;

const sha256 = (bytes) => createHash('sha256').update(bytes).digest();
// protobufjs writes what is set, also defaults; proto3 and all other libraries leave those out, and PBTX's strict checks
// take only that.
const isSet = ([, value]) => value !== 0 && value !== '0';
const encode = (type, fields) =>
  Buffer.from(type.encode(type.fromObject(Object.fromEntries(Object.entries(fields).filter(isSet)))).finish());
// Longs as decimal strings: a number would round.
const decode = (type, bytes) => type.toObject(type.decode(bytes), { longs: String, defaults: true });

function packed(push, text) {
  const buffer = new SerialBuffer({ textEncoder: new TextEncoder(), textDecoder: new TextDecoder() });
  buffer[push](text);
  return Buffer.from(buffer.asUint8Array());
}

function newKey(type) {
  const { publicKey, privateKey } = conversions.generateKeyPair(type, { secureEnv: true });
  return {
    bytes: packed('pushPublicKey', publicKey.toString()),
    sign: (data) => packed('pushSignature', privateKey.sign(data, true).toString()),
  };
}

async function call(path, request, to = url) {
  const headers = { 'Content-Type': 'application/octet-stream' };
  const response = await fetch(to + path, { method: 'POST', headers, body: request });
  assert.equal(response.status, 200, `${path}: HTTP ${response.status}`);
  const answer = RequestResponse.decode(new Uint8Array(await response.arrayBuffer()));
  assert.deepEqual(Buffer.from(answer.requestHash), sha256(request), 'request_hash');
  // As PBTX's own client: decoded whatever the status is.
  return { status: answer.status, why: response.headers.get('florin-error'), data: decode(AccountSeqData, answer.data) };
}

async function expect(status, what, answer) {
  const { why, ...found } = await answer;
  const name = Object.keys(Status).find((key) => Status[key] === found.status);
  assert.equal(name, status, `${what}: ${why}`);
  return found.data;
}

class Actor {
  constructor(id, keys, threshold) {
    Object.assign(this, { id: String(id), keys, seqnum: 0, prevHash: '0' });
    const entries = keys.map((key) => ({ key: { keyBytes: key.bytes }, weight: 1 }));
    this.permission = encode(Permission, { actor: this.id, threshold, keys: entries });
  }

  register({ signer = this.keys[0], shown = credentials, to = url } = {}) {
    const request = {
      permissionBytes: this.permission, signature: signer.sign(this.permission), credentials: Buffer.from(shown),
    };
    return call('/register_account', encode(RegisterAccount, request), to);
  }

  body(changes = {}) {
    return encode(Body, {
      networkId, actor: this.id, seqnum: this.seqnum + 1, prevHash: this.prevHash, transactionType: 5,
      transactionContent: Buffer.from(`transaction ${this.seqnum + 1}`), ...changes,
    });
  }

  envelope(body, signers = [this.keys]) {
    const authorities = signers.map((keys) => ({ sigs: keys.map((key) => key.sign(body)) }));
    return encode(Transaction, { body, authorities });
  }

  async send(to = url) {
    const body = this.body();
    const envelope = this.envelope(body);
    await expect('SUCCESS', `transaction ${this.seqnum + 1} of ${this.id}`, call('/send_transaction', envelope, to));
    this.sent(body);
    return envelope;
  }

  sent(body) {
    this.seqnum += 1;
    this.prevHash = sha256(body).readBigUInt64BE(0).toString();
  }

  sequence(to = url) {
    return expect('SUCCESS', 'get_seq', call('/get_seq', encode(GetSeq, { actor: this.id }), to));
  }

  async isLevel(to = url) {
    const expected = { networkId, actor: this.id, lastSeqnum: this.seqnum, prevHash: this.prevHash };
    assert.deepEqual(await this.sequence(to), expected);
  }
}

// The published values.
const published = encode(Body, {
  networkId: '10', actor: '55', seqnum: 1, transactionContent: Buffer.from('0813120a0a08626c6168626c6168', 'hex'),
});
assert.equal(published.toString('hex'), '090a0000000000000011370000000000000020013a0e0813120a0a08626c6168626c6168');
assert.equal(sha256(published).readBigUInt64BE(0).toString(), '66433744244149695');

// Registering: one signs by K1, one by R1, one by both, and others at the same time.
const [k1, r1] = [newKey(KeyType.k1), newKey(KeyType.r1)];
const one = new Actor('4611686018427387905', [k1], 1);
const two = new Actor(2, [r1], 1);
const both = new Actor(3, [newKey(KeyType.k1), newKey(KeyType.r1)], 2);
const others = Array.from({ length: 9 }, (_, i) => new Actor(100 + i, [k1], 1));
for (const actor of [one, two, both, ...others]) actor.answered = actor.register();
for (const actor of [one, two, both, ...others]) {
  const data = await expect('SUCCESS', `registering ${actor.id}`, actor.answered);
  assert.deepEqual(data, { networkId, actor: actor.id, lastSeqnum: 0, prevHash: '0' });
}
await expect('SUCCESS', 'the same again', one.register());
await expect('SUCCESS', 'signed by its other key', both.register({ signer: both.keys[1] }));
await expect('DUPLICATE_ACTOR', 'another key', new Actor(2, [k1], 1).register());
await expect('INVALID_SIGNATURE', 'a foreign key', new Actor(4, [k1], 1).register({ signer: r1 }));
await expect('INVALID_CREDENTIALS', 'credentials', new Actor(4, [k1], 1).register({ shown: 'guess' }));
await expect('INVALID_AUTHORITY', 'a threshold above the keys', new Actor(4, [k1], 2).register());
await expect('INVALID_ACTOR', 'get_seq of nobody', call('/get_seq', encode(GetSeq, { actor: '4' })));

// 100 transactions, three chains at a time.
const chain = async (actor, count) => { for (let i = 0; i < count; i++) await actor.send(); };
await Promise.all([chain(one, 40), chain(two, 40), chain(both, 20)]);
for (const actor of [one, two, both]) await actor.isLevel();

// With a cosignor, whose own sequence does not move.
const cosigned = one.body({ cosignors: [two.id] });
await expect('INVALID_AUTHORITY', 'no cosignor', call('/send_transaction', one.envelope(cosigned)));
await expect('SUCCESS', 'cosigned', call('/send_transaction', one.envelope(cosigned, [one.keys, two.keys])));
one.sent(cosigned);

// What is wrong, and the status of each.
const refused = (status, what, envelope) => expect(status, what, call('/send_transaction', envelope));
const changed = (changes) => one.envelope(one.body(changes));
await refused('INVALID_SEQ', 'a gap', changed({ seqnum: one.seqnum + 2 }));
await refused('INVALID_SEQ', 'a number that is taken', changed({ seqnum: one.seqnum }));
await refused('INVALID_SEQ', 'prev_hash', changed({ prevHash: '1' }));
await refused('INVALID_SIGNATURE', 'a foreign key', one.envelope(one.body(), [[r1]]));
await refused('INVALID_AUTHORITY', 'one of two keys', both.envelope(both.body(), [[both.keys[0]]]));
await refused('INVALID_ACTOR', 'nobody', changed({ actor: '4' }));
await refused('INVALID_ACTOR', 'no id', changed({ actor: '9223372036854775808' }));
await refused('INVALID_NETWORK_ID', 'another network', changed({ networkId: '11' }));
await refused('INVALID_CONTENT', 'garbage', Buffer.from('garbage'));
await refused('INVALID_CONTENT', 'a content that is too large', changed({ transactionContent: Buffer.alloc(16_385) }));
await refused('INVALID_CONTENT', 'a request that is too large', Buffer.alloc(200_000));
await one.isLevel();

// Sent again, and to another worker: who brings a transaction does not matter.
const last = await one.send();
await expect('SUCCESS', 'the same again', call('/send_transaction', last));
await expect('SUCCESS', 'the same to another worker', call('/send_transaction', last, otherUrl));
await one.send(otherUrl);
await one.isLevel();
await one.isLevel(otherUrl);
await expect('SUCCESS', 'registered elsewhere', one.register({ to: otherUrl }));
await expect('INFRASTRUCTURE_ERROR', 'no wallet', new Actor(4, [k1], 1).register({ to: otherUrl }));

console.log(JSON.stringify({ actors: 12, transactions: one.seqnum + two.seqnum + both.seqnum }));
