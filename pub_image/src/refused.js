'use strict'
// An error with a code that a program can act on; the codes are listed in README.md.
module.exports = class Refused extends Error {
  constructor (code, message) { super(message); this.code = code }
}
