// Package hosted serves the page that a verification session's link leads to: consent,
// document, selfie with guidance, progress and result, in Japanese and English and in
// the look of whom the session belongs to.
//
// The page is opened by the session's token and holds nothing: who reloads it, or goes
// on with another device, finds the session where it was. Pictures go to the endpoints
// of the API for sessions; this package adds what only the page needs, each call
// authorised by the header Session-Token, which no other site can make a browser send.
package hosted
