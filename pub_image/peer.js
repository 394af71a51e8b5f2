'use strict'
// A test peer with a fresh identity of its own, for demos and tests:
//   node peer.js INVITE [seconds]               accept the invite, wait until the pub follows back
//   node peer.js --replicate INVITE [seconds]   two such peers; what the first posts must reach the second through the pub
// Prints one JSON line a step: {"step":"accepted","id":"@...","ms":812}  {"step":"followed","id":"@...","ms":1340}
// {"step":"replicated","ms":1562}, ms since the start. Exit 0 only when all steps came; else the last line is
// {"step":"failed","error":"..."} and the exit code 1 (64: wrong usage). Part of no image, see README.md.
const fs = require('fs')
const os = require('os')
const path = require('path')
const { promisify } = require('util')
const pull = require('pull-stream')
const SecretStack = require('secret-stack')
const caps = require('ssb-caps')
const ssbKeys = require('ssb-keys')

console.trace = () => {} // ssb-ref's notes about deprecated calls
const started = Date.now()
const appKey = process.env.PUB_SHS || caps.shs
const words = process.argv.slice(2)
const replicate = words[0] === '--replicate' && words.shift()
const [invite = '', seconds = '60'] = words
const parts = /^(.+):(\d+):(@[^~]+\.ed25519)~.+$/.exec(invite)
if (!parts || !(seconds > 0)) {
  console.error('usage: peer.js [--replicate] host:port:@id~seed [seconds]')
  process.exit(64)
}
const [, host, port, pubId] = parts
const pubAddress = `net:${host}:${port}~shs:${pubId.slice(1, -'.ed25519'.length)}`
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'peer-'))
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }))

const say = (step, more) => console.log(JSON.stringify({ step, ...more, ms: Date.now() - started }))

function finish (error) {
  if (error) say('failed', { error })
  process.exit(error ? 1 : 0)
}
setTimeout(() => finish(`not done in ${seconds} s`), seconds * 1000)

function newPeer (name) {
  const dir = path.join(folder, name)
  const ssb = SecretStack({ appKey })
    .use(require('ssb-db2/core'))
    .use(require('ssb-classic'))
    .use(require('ssb-box'))
    .use(require('ssb-db2/compat/publish'))
    .use(require('ssb-db2/compat/db'))
    .use(require('ssb-db2/compat/ebt'))
    .use(require('ssb-db2/compat/history-stream'))
    .use(require('ssb-friends'))
    .use(require('ssb-ebt'))
    .use(require('ssb-conn'))
    .use(require('ssb-replication-scheduler'))
    .use(require('ssb-blobs'))
    .use(require('ssb-invite'))({
      path: dir,
      keys: ssbKeys.loadOrCreateSync(path.join(dir, 'secret')),
      appKey,
      caps: { shs: appKey },
      allowPrivate: true,
      friends: { hops: 1 },
      // nobody connects to a test peer, so it listens nowhere and any number of them fit on a machine
      connections: { incoming: {}, outgoing: { net: [{ transform: 'shs' }] } }
    })
  return {
    id: ssb.id,
    accept: promisify((cb) => ssb.invite.accept(invite, cb)),
    connect: promisify((cb) => ssb.conn.connect(pubAddress, {}, cb)),
    publish: promisify((content, cb) => ssb.publish(content, cb)),
    isFollowed: promisify((cb) => ssb.friends.isFollowing({ source: pubId, dest: ssb.id }, cb)),
    feed: promisify((id, cb) => pull(ssb.createHistoryStream({ id }), pull.collect(cb)))
  }
}

async function until (isSo) {
  while (!await isSo()) await new Promise((resolve) => setTimeout(resolve, 100))
}

async function join (peer) {
  await peer.accept()
  say('accepted', { id: peer.id })
  await peer.connect()
  await until(peer.isFollowed)
  say('followed', { id: peer.id })
}

async function main () {
  const alice = newPeer('alice')
  await join(alice)
  if (!replicate) return
  const text = `hello ${started}`
  await alice.publish({ type: 'post', text })
  const bob = newPeer('bob')
  await join(bob)
  await bob.publish({ type: 'contact', contact: alice.id, following: true })
  await until(async () => (await bob.feed(alice.id)).some((msg) => msg.value.content.text === text))
  say('replicated')
}
main().then(() => finish(), (err) => finish(err.message))
