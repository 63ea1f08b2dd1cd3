// Package ui is the design system of postern's pages: tokens and components in one
// style sheet, icons, the message catalogues in Japanese and English, and what a page
// needs to be rendered safely on the server.
//
// A page is an html/template that takes every text from the catalogue, and a small
// script module. Everything is embedded; nothing is built and nothing is fetched from
// elsewhere. The page at /design shows all parts.
package ui
