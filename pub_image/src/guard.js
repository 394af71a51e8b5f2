'use strict'
// The fork guard. A feed is a chain: a pub that lost its newest messages (old backup, crash) and publishes
// again makes two different messages with one number, and its peers drop it silently and for ever. So
// while our own feed is shorter than it is known to have been, nothing is published (RESTORING).
//
// The floor comes from two sources. What the orchestrator says (minSeq) is certain. What our own file says
// may be a message that a crash took before anybody had it: nobody can give it back, so that
// floor is given up after guardMs with a peer around, or six times that without one.
const path = require('path')
const { promisify } = require('util')
const { readJson, writeJson } = require('./files')
const Refused = require('./refused')

module.exports = function startGuard (ssb, { dir, minSeq, guardMs, started, hasPeers, log }) {
  const file = path.join(dir, 'feed-head.json')
  const recorded = readJson(file)
  const floor = Math.max(minSeq, recorded.id === ssb.id ? recorded.sequence : 0)
  let head = { id: ssb.id, sequence: 0 }
  let holding = floor > 0
  let peerSince = 0
  let saved = null // the sequence in the file

  const refresh = promisify((cb) => ssb.db.onDrain('base', () => ssb.getVectorClock((err, clock) => {
    if (err) return cb(err)
    head = { id: ssb.id, sequence: clock[ssb.id] || 0 }
    if (holding && head.sequence >= floor) release('fork-guard-released')
    cb(null, clock)
  })))

  function release (event) {
    holding = false
    log(event, { sequence: head.sequence, floor })
  }

  function save () {
    if (holding) return // never lower what we know
    if (head.sequence === saved) return
    try {
      writeJson(file, { ...head, at: new Date().toISOString() })
      saved = head.sequence
    } catch (err) { log('head-save-failed', { message: err.message }) }
  }

  const giveUpTimer = setInterval(() => {
    if (!holding || head.sequence < minSeq) return
    peerSince = hasPeers() ? peerSince || Date.now() : 0
    const waited = (peerSince && Date.now() - peerSince >= guardMs) || Date.now() - started >= 6 * guardMs
    if (!waited) return
    release('fork-guard-given-up')
    save()
  }, 5000)
  const saveTimer = setInterval(() => refresh().then(save, () => {}), 60e3)

  // every way to write to our feed (invites, follows, profile) goes through ssb.publish
  ssb.publish.hook(function (fn, args) {
    const cb = args[args.length - 1]
    const publish = () => fn.apply(this, [...Array.prototype.slice.call(args, 0, -1), recording(cb)])
    if (!holding) return publish()
    refresh().then(() => {
      if (holding) cb(new Refused('RESTORING', `own feed is at ${head.sequence}, known to have reached ${floor}: publishing now would fork it`))
      else publish()
    }, cb)
  })
  const recording = (cb) => (err, msg) => {
    if (err || !msg || !msg.value || msg.value.author !== ssb.id) return cb(err, msg)
    head = { id: ssb.id, sequence: msg.value.sequence, key: msg.key }
    save() // at once: peers may have the message before our disk has
    let answered = false
    const answer = () => { if (!answered) { answered = true; cb(null, msg) } }
    ssb.db.getLog().onDrain(answer) // an answer means it is on disk,
    setTimeout(answer, 3000).unref() // unless the log is too busy to say
  }

  refresh().then(save, () => {})

  return {
    floor,
    refresh,
    save,
    head: () => head,
    isHolding: () => holding,
    stop: () => { clearInterval(giveUpTimer); clearInterval(saveTimer); save() }
  }
}
