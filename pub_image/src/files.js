'use strict'
// Small JSON files whose loss would hurt: on disk before the call returns, never half written.
const fs = require('fs')

function readJson (file) {
  if (!fs.existsSync(file)) return {}
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch (err) {
    throw new Error(`${file} is damaged (${err.message}): put it back from a backup`)
  }
}

function writeJson (file, value) {
  fs.writeFileSync(file + '.tmp', JSON.stringify(value), { mode: 0o600, flush: true })
  fs.renameSync(file + '.tmp', file)
}

module.exports = { readJson, writeJson }
